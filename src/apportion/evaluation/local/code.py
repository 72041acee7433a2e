"""Whether generated code passes its tests, which are run apart from this process."""

from __future__ import annotations

from typing import Any

from apportion.evaluation.sandbox import passes


def humaneval(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return ``pass_at_1`` of one body of a function of HumanEval."""
    program = f"{doc['prompt']}{results[0]}\n{doc['test']}\ncheck({doc['entry_point']})\n"
    return {"pass_at_1": float(passes(program))}


def mbpp(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return ``pass_at_1`` of one answer of MBPP."""
    setup = doc.get("test_setup_code") or ""
    return {"pass_at_1": float(passes("\n".join([results[0], setup, *doc["test_list"]])))}
