"""What thinking stands between, as text and as the tokens of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apportion._config import Config, validate
from apportion._errors import ApportionError


class ThinkingTags(Config):
    """The words that open and close thinking, the recipe's ``thinking`` block.

    Attributes:
        open: What stands before it.
        close: What ends it.
        wait: What is written in place of an end that comes too soon.
        answer: What is written behind an end that was forced, such as ``Final Answer:``.
    """

    open: str = "<think>"
    close: str = "</think>"
    wait: str = "Wait"
    answer: str | None = None

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | ThinkingTags) -> ThinkingTags:
        """Read ``"<think>,</think>"``, which may go on with ``wait`` and ``answer``, or a mapping of them.

        Raises:
            ApportionError: Neither, or another number of words.
        """
        if not isinstance(value, str):
            return value if isinstance(value, ThinkingTags) else validate(cls, value, "thinking")
        words = value.split(",")
        if not 2 <= len(words) <= 4:
            raise ApportionError(
                f"Tags of thinking are an open and a close tag by comma, such as '<think>,</think>', and maybe what is "
                f"written in place of an end and behind a forced one; '{value}' is none."
            )
        return cls(**dict(zip(("open", "close", "wait", "answer"), words, strict=False)))

    def ids(self, tokenizer: Any) -> TagIds:  # noqa: ANN401 - a transformers tokenizer
        """Return the words as the tokenizer writes them, each by itself and without its special tokens.

        Raises:
            ApportionError: A word that is empty, or that the tokenizer cannot write.
        """
        answer = () if self.answer is None else _written(tokenizer, "answer", self.answer)
        wait = _written(tokenizer, "wait", self.wait) if _can_write(tokenizer, self.wait) else ()
        return TagIds(_written(tokenizer, "open", self.open), _written(tokenizer, "close", self.close), wait, answer)


@dataclass(frozen=True)
class TagIds:
    """The tags as tokens; ``wait`` is empty where the tokenizer cannot write it, ``answer`` where there is none."""

    open: tuple[int, ...]
    close: tuple[int, ...]
    wait: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def forced(self) -> tuple[int, ...]:
        """What is written where an end is forced."""
        return self.close + self.answer

    def opened(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return a prompt that is to be thought about: it ends in the open tag, added unless it stands there."""
        given = tuple(ids)
        return given if given[-len(self.open) :] == self.open else given + self.open


def _ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _can_write(tokenizer: Any, text: str) -> bool:  # noqa: ANN401
    ids = _ids(tokenizer, text)
    return bool(ids) and tokenizer.unk_token_id not in ids


def _written(tokenizer: Any, key: str, text: str) -> tuple[int, ...]:  # noqa: ANN401
    if not text.strip():
        raise ApportionError(f"'thinking.{key}' is empty: give the text that stands there.")
    if not _can_write(tokenizer, text):
        raise ApportionError(
            f"'thinking.{key}' is {text!r}, which the model's tokenizer cannot write: give the one it knows."
        )
    return tuple(_ids(tokenizer, text))


def find(ids: Sequence[int], tag: Sequence[int], start: int = 0) -> int | None:
    """Return where ``tag`` first stands in ``ids`` from ``start`` on, None where it does not."""
    for at in range(start, len(ids) - len(tag) + 1):
        if tuple(ids[at : at + len(tag)]) == tuple(tag):
            return at
    return None
