"""How stable a model's heads are: which of them keep their best pages, written for FlexiCache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion.budget import InferenceBudget
from apportion.caches.stability import Stability
from apportion.decoding.requests import read_prompts, requests_of
from apportion.plans.answering import Answering
from apportion.plans.progress import Told
from apportion.runs import atomic_write_text
from apportion.runs.schema import dump_file


@dataclass(frozen=True)
class Profile:
    """A finished profile: its file and what that says."""

    path: Path
    record: dict[str, Any]


def profile_file(
    answering: Answering,
    prompts: str | Path,
    out: str | Path,
    *,
    method: Stability,
    budget: InferenceBudget,
    told: Told | None = None,
) -> Profile:
    """Answer prompts with the whole cache and write how stable each KV head's best pages were.

    Args:
        answering: The model.
        prompts: JSON Lines with ``prompt`` or ``messages``, long enough for more than ``method.pages`` pages.
        out: The JSON file; one that is there is written over.
        method: Pages and interval that stability is measured for.
        budget: ``answer`` is how many tokens are written to each.
        told: Called with how many prompts of how many are answered.

    Raises:
        ApportionError: Prompts that cannot be read, or that are too short for any head to choose.

    Cost: that of answering the prompts.
    """
    rows = read_prompts(Path(prompts))
    requests = requests_of(rows, answering.tokenizer, budget, answering.positions)
    # An answer that ends early would say nothing of the steps after it.
    engine = answering.engine(method, budget, sampling={"min_new_tokens": budget.answer})
    for number, request in enumerate(requests):
        if told is not None:
            told(number, len(requests))
        method.begin()
        for _ in engine.answer([request]):
            pass
    if told is not None:
        told(len(requests), len(requests))
    heads = method.heads()
    if not heads:
        raise ApportionError(
            f"No prompt with its answer has more than {method.pages} pages of {method.page} tokens and {method.interval} "
            "decode steps after them: give longer prompts, a longer --answer, or fewer --pages."
        )
    record = {
        "model": answering.name,
        "page": method.page,
        "pages": method.pages,
        "interval": method.interval,
        "prompts": len(rows),
        "heads": heads,
    }
    atomic_write_text(out, dump_file(record))
    return Profile(Path(out), record)
