"""Prompts of a file answered into a file, batch by batch, so that what is stopped goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apportion._errors import ApportionError
from apportion.budget import Budget, Ledger, Served, charge, means
from apportion.caches import CACHES
from apportion.decoding.engine import Answered, Engine
from apportion.decoding.requests import read_prompts, requests_of
from apportion.plans.answering import Answering
from apportion.plans.progress import Told
from apportion.runs import atomic_write_text
from apportion.runs.atomic import write_error
from apportion.runs.schema import dump_file, dump_line

_SECONDS = ("queued", "prefill", "decode")


@dataclass(frozen=True)
class Generated:
    """The answers' file, how many there are, and what they took."""

    path: Path
    requests: int
    summary: Mapping[str, Any]


def beside(out: Path) -> Path:
    """Return the file that says what the answers in ``out`` took, and how they were made."""
    return out.with_name(f"{out.name}.inference.json")


def generate_file(
    answering: Answering,
    engine: Engine,
    prompts: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    told: Told | None = None,
) -> Generated:
    """Answer every prompt of a file; a file that holds a part of the same answers is gone on with.

    Args:
        answering: The model.
        engine: How it answers: its cache, the budget of a request, the batch.
        prompts: JSON Lines with ``prompt`` or ``messages``.
        out: JSON Lines, a line a prompt, in order: the prompt's row, ``answer``, and ``tokens`` by kind; with thinking
            ``thinking`` too, and whether its end was reached (``closed``) and ``forced``.
        seed: Of draws.
        told: Called with how many prompts of how many are answered.

    Raises:
        ApportionError: Prompts that cannot be read or are too long, a budget that the method cannot keep, or a file that
            holds something else.

    Cost: charged to `generate`, in the file beside ``out``; a run's own ledger stays as it is.
    """
    file, rows = Path(out), read_prompts(Path(prompts))
    requests = requests_of(rows, answering.tokenizer, engine.budget, answering.positions, engine.tags)
    settings = {
        "model": answering.name,
        "cache": CACHES.block(engine.method, "cache"),
        "budget": engine.budget.written(),
        "batch_size": engine.batch_size,
        "sampling": engine.sampling,
        "seed": seed,
        "prompts": len(rows),
        **({} if engine.tags is None else {"tags": asdict(engine.tags)}),
    }
    done = _done(file, settings, engine.batch_size)
    answers = engine.answer(requests, seed=seed, start=done)
    if not done:
        atomic_write_text(beside(file), dump_file({"settings": settings}))
    if told is not None:
        told(done, len(requests))
    for batch in answers:
        _append(file, [_line(answered) for answered in batch])
        done += len(batch)
        if told is not None:
            told(done, len(requests))
    summary = _summary(file, settings, answering)
    atomic_write_text(beside(file), dump_file(summary))
    return Generated(file, len(requests), summary)


def _line(answered: Answered) -> dict[str, Any]:
    """Return a line of the file; what a clock says stands nowhere in it, so that the same answers are the same bytes."""
    served = {key: value for key, value in asdict(answered.served).items() if key not in _SECONDS}
    tokens = {kind: served[kind] for kind in ("prompt", "reused", "thinking", "answer", "inserted")}
    said: dict[str, Any] = {"answer": answered.text, "tokens": tokens, "served": served}
    if answered.request.thinking is not None:
        said = {"thinking": answered.thinking, **said, "closed": answered.closed, "forced": answered.forced}
    return {**answered.request.row, **said}


def _done(file: Path, settings: Mapping[str, Any], batch_size: int) -> int:
    """Return how many answers of these settings the file holds, in whole batches; the rest of it is cut off."""
    if not file.exists():
        return 0
    try:
        held = json.loads(beside(file).read_text("utf-8"))
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("settings") != json.loads(json.dumps(settings)):
        raise ApportionError(f"'{file}' is there already, and holds no answers that these go on with: give a new file.")
    lines = file.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    kept = whole if len(whole) == settings["prompts"] else whole[: len(whole) // batch_size * batch_size]
    os.truncate(file, sum(map(len, kept)))
    return len(kept)


def _append(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(dump_line(line) + "\n" for line in lines).encode()
    try:
        with file.open("ab") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise write_error(file, error) from None


def _summary(file: Path, settings: Mapping[str, Any], answering: Answering) -> dict[str, Any]:
    """Return what all answers of the file took, in sums and means."""
    found = [json.loads(line)["served"] for line in file.read_text("utf-8").splitlines()]
    served = [Served(**row) for row in found]
    whole = sum(served[1:], served[0])
    ledger = Ledger(Budget("flops", 1e40))
    charge(ledger, whole, "generate")
    sums = {**asdict(whole), "tokens": whole.tokens}
    steps = max(whole.steps, 1)
    return {
        "settings": settings,
        "device": answering.device,
        "sums": sums,
        "means": means(served),
        "a_step": {"read": whole.read / steps, "resident": whole.resident_steps / steps},
        "accounts": {"generate": asdict(ledger.spent("generate"))},
    }
