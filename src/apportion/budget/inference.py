"""The budget of a served request as a type: a limit a key, read from what a person writes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, field_validator

from apportion._config import Config, validate
from apportion._errors import nearest
from apportion.budget.thinking import ThinkingBudget

_AMOUNT = re.compile(r"(?P<number>(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?P<unit>%|[a-z]*)", re.IGNORECASE)
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}
_LARGEST = Decimal(10) ** 40


def _read(value: object, units: Mapping[str, str], wanted: str) -> tuple[Decimal, str]:
    """Return amount and unit of ``value``; ``units`` maps every spelling to its unit, "" being none at all."""
    match = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"is written like {wanted}")
    said = match["unit"].lower()
    if said in _SCALES and said not in units:
        scale, said = _SCALES[said], ""
    else:
        scale = 1
    amount = Decimal(match["number"].replace("_", "")) * scale
    if said not in units:
        raise ValueError(
            f"has no unit '{match['unit']}'{nearest(said, [unit for unit in units if unit])}; write {wanted}"
        )
    if amount <= 0:
        raise ValueError("must be more than zero")
    if amount > _LARGEST:
        raise ValueError("is too large")
    return amount, units[said]


def _whole(amount: Decimal, what: str) -> int:
    if amount != amount.to_integral_value():
        raise ValueError(f"is not a whole number of {what}")
    return int(amount)


def _plain(amount: float) -> str:
    """Return a number as it is read again, to the last digit."""
    return repr(float(amount)).removesuffix(".0")


# "4k tokens" and "4k" alike; a scale may stand at the number: 4k, and then a word.
_TOKEN_WORDS = {"": "tokens", "token": "tokens", "tokens": "tokens"}


def read_tokens(value: object, *, least: int = 1) -> int | None:
    """Read ``256``, ``4k`` or ``"256 tokens"``; None is none.

    Raises:
        ValueError: None of these, less than ``least``, or a part of a token.
    """
    if value is None or (least == 0 and str(value).strip() == "0"):
        return None if value is None else 0
    amount, _ = _scaled(value, _TOKEN_WORDS, "256, 4k or '256 tokens'")
    return _whole(amount, "tokens")


def _scaled(value: object, units: Mapping[str, str], wanted: str) -> tuple[Decimal, str]:
    """Read an amount whose number may end in k, M or B before its unit: ``4k tokens``."""
    text = value if isinstance(value, bool) else str(value).strip()
    match = isinstance(text, str) and re.fullmatch(r"([\d_.]+(?:e[+-]?\d+)?)\s*([kmb])\s+([a-z]+)", text, re.IGNORECASE)
    if match:
        amount, unit = _read(f"{match[1]} {match[3]}", units, wanted)
        return amount * _SCALES[match[2].lower()], unit
    return _read(text, units, wanted)


@dataclass(frozen=True)
class KvLimit:
    """How many cached tokens a decode step may attend to in each KV head: ``unit`` is ``tokens``, ``pages`` or ``%``."""

    amount: float
    unit: Literal["tokens", "pages", "%"]

    def __str__(self) -> str:
        return f"{_plain(self.amount)}%" if self.unit == "%" else f"{int(self.amount)} {self.unit}"

    def tokens(self, cached: int, page: int | None) -> int:
        """Return the tokens that this is of ``cached`` ones; a share is rounded up.

        Args:
            cached: Tokens in the cache, the new one included.
            page: Tokens of a page, None for a method without pages.

        Raises:
            ValueError: Pages, of a method without them.
        """
        if self.unit == "pages":
            if page is None:
                raise ValueError("a budget in pages takes a method with pages")
            return int(self.amount) * page
        if self.unit == "%":
            return min(math.ceil(Decimal(str(self.amount)) * cached / 100), cached)
        return int(self.amount)

    @classmethod
    def parse(cls, value: object) -> KvLimit:
        """Read ``256``, ``4k``, ``"256 tokens"``, ``"16 pages"`` or ``"25%"``.

        Raises:
            ValueError: None of these, zero, a part of a token, or more than all.
        """
        if isinstance(value, KvLimit):
            return value
        units = {**_TOKEN_WORDS, "page": "pages", "pages": "pages", "%": "%"}
        amount, unit = _scaled(value, units, "256, '256 tokens', '16 pages' or 25%")
        if unit == "%":
            if amount > 100:
                raise ValueError("is more than all cached tokens")
            return cls(float(amount), "%")
        return cls(_whole(amount, unit), "pages" if unit == "pages" else "tokens")


@dataclass(frozen=True)
class Bytes:
    """An amount of memory as it was written: MB are 10^6 bytes and MiB 2^20."""

    count: int
    text: str

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bytes) and other.count == self.count

    def __hash__(self) -> int:
        return hash(self.count)

    @classmethod
    def parse(cls, value: object) -> Bytes:
        """Read ``"96 MB"`` or ``"96 MiB"``; a unit is needed.

        Raises:
            ValueError: Neither, or zero.
        """
        if isinstance(value, Bytes):
            return value
        amount, unit = _read(value, {key: key for key in _BYTES}, "'96 MB' or '96 MiB'")
        return cls(_whole(amount * _BYTES[unit], "bytes"), str(value).strip())


@dataclass(frozen=True)
class Total:
    """What a whole request may take: ``unit`` is ``flops``, or ``tokens`` of every kind together."""

    amount: float
    unit: Literal["flops", "tokens"]

    def __str__(self) -> str:
        return f"{_plain(self.amount)} FLOPs" if self.unit == "flops" else f"{int(self.amount)} tokens"

    @classmethod
    def parse(cls, value: object) -> Total:
        """Read ``"1e12 FLOPs"``, ``"4k tokens"`` or ``{"tokens": "4k"}``; a unit is needed.

        Raises:
            ValueError: None of these, zero, or a part of a token.
        """
        if isinstance(value, Total):
            return value
        if isinstance(value, Mapping):
            if set(value) != {"tokens"}:
                raise ValueError("has one key, 'tokens', or is written like '1e12 FLOPs'")
            return cls.parse(f"{value['tokens']} tokens")
        units = {"flop": "flops", "flops": "flops", "token": "tokens", "tokens": "tokens"}
        amount, unit = _scaled(value, units, "'1e12 FLOPs' or '4k tokens'")
        if unit == "tokens":
            return cls(_whole(amount, "tokens"), "tokens")
        return cls(float(amount), "flops")


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    amount, unit = _read(value, {key: key for key in _SECONDS}, "'50 ms' or '0.5 s'")
    return float(amount * _SECONDS[unit])


def _said(value: Any) -> Any:  # noqa: ANN401 - any of the limits above
    return None if value is None else str(value)


def _optional(parse: Callable[[object], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else parse(value))


Tokens = Annotated[int | None, BeforeValidator(read_tokens)]
TokensOrNone = Annotated[int | None, BeforeValidator(lambda value: read_tokens(value, least=0))]
Seconds = Annotated[
    float | None, BeforeValidator(_seconds), PlainSerializer(lambda v: None if v is None else f"{_plain(v)} s")
]
Kv = Annotated[KvLimit | None, _optional(KvLimit.parse), PlainSerializer(_said)]
Resident = Annotated[Bytes | None, _optional(Bytes.parse), PlainSerializer(_said)]
Whole = Annotated[Total | None, _optional(Total.parse), PlainSerializer(_said)]


class InferenceBudget(Config):
    """What a request may take, the recipe's ``inference`` block: each key is one limit, None for none.

    Attributes:
        prompt: Its longest prompt, in tokens of the model's own tokenizer.
        over: What is done with a longer one: refused, or cut in the middle.
        thinking: Tokens between the tags of thinking: a number, or {most, least, ignore}.
        answer: Tokens after it and its close tag; 0, where there is thinking, ends with the tag.
        kv: Cached tokens attended to a decode step and KV head, sinks and recent ones included.
        resident: Bytes of cache and side data that it may keep on the device.
        total: FLOPs, or tokens of all kinds.
        tbt, ttft: Seconds between tokens and to the first one: objectives, which nothing is held against yet.

    Generation holds to all but the last two; ``resident`` and ``total`` end a request before the token that would be over.
    """

    prompt: Tokens = None
    over: Literal["refuse", "middle"] = "refuse"
    thinking: ThinkingBudget | None = None
    answer: TokensOrNone = None
    kv: Kv = None
    resident: Resident = None
    total: Whole = None
    tbt: Seconds = None
    ttft: Seconds = None

    @field_validator("answer")
    @classmethod
    def _something(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value == 0 and info.data.get("thinking") is None:
            raise ValueError("must be more than zero where there is no thinking")
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> InferenceBudget:
        """Read the block.

        Raises:
            ApportionError: An unknown key or unit, with the nearest, or a limit that is none.
        """
        return validate(cls, values, "inference")

    @property
    def most_thinking(self) -> int:
        """The tokens that thinking may take, 0 where nothing is thought or nothing said."""
        return 0 if self.thinking is None else self.thinking.most or 0

    def written(self) -> dict[str, Any]:
        """Return the block as a person would write it; `parse` reads the same budget from it."""
        return self.model_dump(mode="json", exclude_none=True)
