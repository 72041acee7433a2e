"""Prompts to be answered: JSON Lines with ``prompt`` or ``messages``, as the model was, or is, trained to read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from apportion._errors import ApportionError, nearest
from apportion.budget.inference import InferenceBudget
from apportion.budget.thinking import ThinkingBudget
from apportion.tasks.encoder import Encoder
from apportion.tasks.truncation import shorten
from apportion.thinking.tags import TagIds

KEYS = ("prompt", "messages", "reference")
# New tokens of an answer, where the budget says nothing.
ANSWER = 128


@dataclass(frozen=True)
class Request:
    """One prompt: its row as it was given, and the tokens that the model reads.

    ``thinking`` is its own budget of thinking, in place of the one that all requests have.
    """

    row: dict[str, Any]
    ids: tuple[int, ...]
    thinking: ThinkingBudget | None = None


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Read prompts, one JSON object a line; ``reference`` may say what the answer should be.

    Raises:
        ApportionError: No such file, no prompt in it, or a line that is none; the message names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ApportionError(
            f"The prompts '{path}' cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
    rows = [_row(line, f"Line {number} of '{path}'") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ApportionError(f"'{path}' holds no prompt: give JSON Lines with a key 'prompt' or 'messages'.")
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ApportionError(f"{where} is not JSON ({error.msg}).") from None
    if not isinstance(row, dict):
        raise ApportionError(f"{where} is not a JSON object with a key 'prompt' or 'messages'.")
    given = [key for key in ("prompt", "messages") if key in row]
    if len(given) != 1:
        meant = next((nearest(key, KEYS) for key in row if nearest(key, KEYS)), "") if not given else ""
        raise ApportionError(f"{where} needs either 'prompt' or 'messages'{meant}.")
    kind = str if given == ["prompt"] else list
    if not isinstance(row[given[0]], kind):
        raise ApportionError(f"{where}: '{given[0]}' must be {'text' if kind is str else 'a list of turns'}.")
    return row


def requests_of(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    budget: InferenceBudget,
    longest: int,
    tags: TagIds | None = None,
) -> list[Request]:
    """Return the rows with their tokens, which end in the open tag where there is thinking.

    Args:
        rows: What `read_prompts` returned.
        tokenizer: The model's.
        budget: ``prompt`` bounds the tokens, and ``over`` says what is done with more.
        longest: Positions that the model has, for prompt and answer together.
        tags: Of thinking, where the budget has some.

    Raises:
        ApportionError: A prompt that is longer than the budget or the model, or turns that the tokenizer cannot write.
    """
    thinks = tags if budget.thinking is not None else None
    answer = budget.most_thinking + (1 if budget.answer is None else budget.answer)
    answer += len(thinks.forced) if thinks is not None else 0
    room = min(budget.prompt or longest, longest - answer)
    if room < 1:
        said = f"'inference.answer' is {budget.answer}" + (
            "" if thinks is None else f" and 'thinking' {budget.thinking}"
        )
        raise ApportionError(
            f"{said}: the model has {longest} positions, which leaves none for a prompt. Take a shorter answer."
        )
    encoder = Encoder(tokenizer, 10**9)
    found = []
    for number, row in enumerate(rows, 1):
        ids = _ids(row, encoder, tokenizer)
        tag = 0 if thinks is None else len(thinks.opened(ids)) - len(ids)
        if len(ids) + tag > room:
            if budget.over != "middle":
                raise ApportionError(
                    f"Prompt {number} has {len(ids) + tag:,} tokens, and {room:,} have room beside {answer:,} of an answer: "
                    "cut it, or have its middle cut out (--over middle, or 'over: middle' in a recipe's 'inference')."
                )
            ids = _cut(ids, room - tag)
        found.append(Request(row, tuple(ids) if thinks is None else thinks.opened(ids)))
    return found


def _ids(row: dict[str, Any], encoder: Encoder, tokenizer: Any) -> list[int]:  # noqa: ANN401
    if "prompt" in row:
        return [int(token) for token in encoder.prompts([row["prompt"]], 1)[0]]
    if not tokenizer.chat_template:
        raise ApportionError("The model's tokenizer has no chat template: give 'prompt' and not 'messages'.")
    try:
        text = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
    except Exception as error:
        # Templates are programs, which say what they refuse in their own way.
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ApportionError(f"The chat template refuses {row['messages']!r}: {said}.") from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _cut(ids: Sequence[int], room: int) -> list[int]:
    import numpy as np

    fitted, _, _ = shorten(np.array(ids, np.int32), np.full(1, -1, np.int32), room + 1)
    return [int(token) for token in fitted[fitted >= 0]]
