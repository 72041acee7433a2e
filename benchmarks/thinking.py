"""Thinking budgets, as ratios within one run: medians of the ratios of neighbours, since machines are never idle.

    python benchmarks/thinking.py [--json] [--only forcer,steps,advantages] [--threads 1]

- ``forcer_overhead``: a decoding step of a batch of 32 with what holds thinking to its budget over one without: the
  processor that forces the close tag, and what stops each row. A model of 0.8M parameters, a close tag of three tokens,
  all rows thinking. ``..._late``: 512 tokens after thinking began; ``..._waiting``: with ends that are put off, which
  takes tags of one token.
- ``ledger_overhead``: a step of GRPO by `apportion reinforce`, metered, charged and recorded, over one of TRL's own trainer
  with the same processor in its roll-outs; 64 roll-outs of 53 tokens, the same in both. Processor seconds.
- ``brpo_over_grpo_seconds``: seconds a generated token of BRPO at four budgets with four answers each over GRPO's.
- ``advantages_ms``: BRPO's advantages of 64 roll-outs at four budgets with four answers each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from reinforcing import advantages, steps
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

from apportion.budget import ThinkingBudget
from apportion.decoding.attach import cache_argument
from apportion.decoding.holding import Stops
from apportion.thinking.forcer import ThinkingForcer
from apportion.thinking.tags import TagIds

BATCH, PROMPT, NEW = 32, 64, 64
LONG = TagIds(open=(5,), close=(6, 7, 8), wait=(9,), answer=())
SHORT = TagIds(open=(5,), close=(6,), wait=(9,), answer=())


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=4096,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def step(
    language: Any, prompt: Tensor, tags: TagIds | None, start: int, budget: ThinkingBudget
) -> Callable[[], object]:
    """Return what decodes one more token of each row, as transformers' own loop does, and begins again after `NEW`."""
    forcer = None if tags is None else ThinkingForcer(tags, start, [budget] * BATCH, ends=[2])
    stops = None if forcer is None else Stops([start] * BATCH, [10**6] * BATCH, forcer, 16)
    held, argument = dict[str, Any](), cache_argument(language)

    def begin() -> None:
        held["cache"], held["ids"] = DynamicCache(config=language.config), prompt
        held["logits"] = language(prompt, **{argument: held["cache"]}).logits[:, -1]

    def decode() -> object:
        if held["ids"].shape[1] >= prompt.shape[1] + NEW:
            begin()
        ids, scores = held["ids"], held["logits"].float()
        if forcer is not None:
            scores = forcer(ids, scores)
        held["ids"] = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
        if stops is not None:
            stops(held["ids"], None)
        held["logits"] = language(held["ids"][:, -1:], **{argument: held["cache"]}).logits[:, -1]
        return held["logits"]

    begin()
    return decode


@torch.no_grad()
def forcer(rounds: int) -> dict[str, Any]:
    """Time decoding steps with and without what holds thinking to its budget."""
    language, found = model(), {}
    for name, tags, thought, budget in (
        ("", LONG, 0, ThinkingBudget(most=10**6)),
        ("_late", LONG, 512, ThinkingBudget(most=10**6)),
        ("_waiting", SHORT, 0, ThinkingBudget(most=10**6, ignore=2)),
    ):
        prompt = torch.randint(10, 64, (BATCH, PROMPT + thought), generator=torch.Generator().manual_seed(1))
        steps = {
            "without": step(language, prompt, None, PROMPT, budget),
            "with": step(language, prompt, tags, PROMPT, budget),
        }
        times = paired(steps, rounds)
        ratios = [a / b for a, b in zip(times["with"], times["without"], strict=True)]
        found[f"forcer_overhead{name}"] = round(statistics.median(ratios), 3)
        milliseconds = {key: round(1000 * statistics.median(seconds), 3) for key, seconds in times.items()}
        found[f"forcer_milliseconds{name}"] = milliseconds
    return found


def paired(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each step in each round, now one first and now the other; the first three do not count."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(rounds + 3):
        for name in list(steps)[:: 1 if done % 2 else -1]:
            started = time.perf_counter()
            steps[name]()
            if done >= 3:
                found[name].append(time.perf_counter() - started)
    return found


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "forcer": lambda rounds: forcer(10 * rounds),
    "steps": lambda rounds: steps(max(rounds // 6, 1)),
    "advantages": advantages,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="print one line of JSON")
    options.add_argument("--only", default=",".join(PARTS), help="parts, commas between")
    options.add_argument("--threads", type=int, default=1, help="more than are idle measure the scheduler")
    options.add_argument("--rounds", type=int, default=31)
    chosen = options.parse_args()
    # TRL says at each use that custom roll-outs are experimental.
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.simplefilter("ignore")
    torch.set_num_threads(chosen.threads)
    found: dict[str, Any] = {}
    for part in chosen.only.split(","):
        new = PARTS[part](chosen.rounds)
        found |= new
        if not chosen.json:
            print(*(f"{name:34} {value}" for name, value in new.items()), sep="\n", flush=True)
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
