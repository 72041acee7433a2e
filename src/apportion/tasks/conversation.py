"""Where each of a conversation's turns stands in the text that a chat template makes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

from apportion._errors import ApportionError

Turn = dict[str, str]


class Render(Protocol):
    """Writes turns as a text; settings are the template's, such as ``add_generation_prompt``."""

    def __call__(self, turns: Sequence[Turn], **settings: Any) -> str:  # noqa: ANN401
        """Return the text."""


class Conversation:
    """One conversation and its renderings, which are compared to find its turns.

    Each turn gets a tag at its end, of letters that stand nowhere in it. Where the rendering with tags is, but for the
    tags, the rendering without, each turn ends where its tag stands. A turn of the assistant's begins where that ends
    which the template writes, after the turn before it, for the model to go on from: the generation prompt. It ends with
    the marker that the template writes after it whatever comes next. Nothing here looks for the words of a turn, so it
    matters neither that they recur nor what a template drops, strips or moves; what these comparisons do not settle is
    an error.

    Args:
        turns: The turns, (role, content) each.
        render: Writes turns as a text.
        prompts: Settings under which ``render`` ends in a generation prompt; the first one that is found counts.
        whole: Matches what the tokenizer never cuts, such as end markers.
        name: The example's id, for error messages.

    Attributes:
        text: The conversation as the template writes it.
        endless: How many of the turns asked for the template ends with nothing.

    Raises:
        ApportionError: The template refuses the conversation, or its turns cannot be told apart in its text.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        render: Render,
        prompts: Sequence[dict[str, Any]],
        whole: re.Pattern[str],
        name: str,
    ) -> None:
        self.turns = list(turns)
        self.text = render(self.turns)
        self.endless = 0
        self._render, self._prompts, self._whole, self._name = render, prompts, whole, name
        number = 0
        while any(f"Xq{number}Z" in text for text in (self.text, *(turn["content"] for turn in turns))):
            number += 1
        self._stem = f"Xq{number}Z"
        self._tags = re.compile(rf"{self._stem}(\d+)Z")
        self._tagged = [self._with_tag(k) for k in range(len(self.turns))]

    @cached_property
    def _ends(self) -> dict[int, int]:
        """Where each turn's words end in the text, white space after them left out."""
        tagged = self._render(self._tagged)
        if self._tags.sub("", tagged) != self.text:
            raise self._unresolved("reads the ends of turns")
        ends: dict[int, int] = {}
        before = 0
        for match in self._tags.finditer(tagged):
            if int(match[1]) in ends:
                raise self._unresolved(f"writes turn {match[1]} twice")
            ends[int(match[1])] = match.start() - before
            before += len(match[0])
        return ends

    @property
    def unwritten(self) -> int:
        """How many turns that say something the template leaves out."""
        return sum(k not in self._ends for k, turn in enumerate(self.turns) if turn["content"].strip())

    def owner(self, place: int) -> int | None:
        """Return the assistant's turn that ``place`` in the text is a part of, the first one that ends after it."""
        later = [k for k, turn in enumerate(self.turns) if turn["role"] == "assistant" and self._end(k) >= place]
        return later[0] if later else None

    def spans(self, turns: Sequence[int]) -> list[tuple[int, int]]:
        """Return where each of these turns of the assistant's begins and where its end marker ends.

        Raises:
            ApportionError: The renderings do not settle it.
        """
        spans = [self._span(k) for k in turns]
        for (_, before), (start, _), k in zip(spans, spans[1:], turns[1:], strict=False):
            if start < before:
                raise self._unresolved(f"does not write turn {k} in its place")
        return spans

    def _span(self, k: int) -> tuple[int, int]:
        start, said = self._start(k), self._end(k)
        marker = self._marker(k)
        end = said + len(marker)
        self.endless += not marker
        if start > said or any(start < other <= end for turn, other in self._ends.items() if turn != k):
            raise self._unresolved(f"does not write turn {k} in its place")
        return start, end

    def _start(self, k: int) -> int:
        at = self._end(k - 1) if k else 0
        written = self.text[at:]
        for settings in self._prompts if k else ():
            handed = self._after(self._render(self._tagged[:k], **settings), k - 1)
            if written.startswith(handed):
                return at + len(handed)
        # No turn before it, or a generation prompt that says more than is written here, such as an opened thought: with
        # nothing but its tag for a content, the turn begins at the tag.
        emptied = [*self._tagged[:k], {**self.turns[k], "content": self._tag(k)}, *self._tagged[k + 1 :]]
        text = self._render(emptied)
        header, tag, _ = (self._after(text, k - 1) if k else text).partition(self._tag(k))
        if not tag or not written.startswith(header):
            raise self._unresolved(f"does not begin turn {k} as it begins others")
        return at + len(header)

    def _marker(self, k: int) -> str:
        """Return what the template writes after the turn's words whatever follows, without white space at its end."""
        rest = self.text[self._end(k) :]
        if k < len(self.turns) - 1:
            alone = self._after(self._render(self._tagged[: k + 1]), k)
            common = next(
                (at for at, (a, b) in enumerate(zip(alone, rest, strict=False)) if a != b), min(len(alone), len(rest))
            )
            for text in (alone, rest):
                for match in self._whole.finditer(text):
                    if match.start() < common < match.end():
                        common = match.start()
            rest = rest[:common]
        # A marker may be a newline and nothing else.
        return rest.rstrip() or rest

    def _end(self, k: int) -> int:
        if k not in self._ends:
            raise self._unresolved(f"leaves out turn {k}")
        return self._ends[k]

    def _after(self, text: str, k: int) -> str:
        """Return what follows the tag of turn ``k``."""
        _, tag, rest = text.partition(self._tag(k))
        if not tag:
            raise self._unresolved(f"leaves out turn {k} where it comes last")
        return rest

    def _tag(self, k: int) -> str:
        return f"{self._stem}{k}Z"

    def _with_tag(self, k: int) -> Turn:
        # Before the white space at its end, which some templates strip and others write.
        words = self.turns[k]["content"].rstrip()
        return {**self.turns[k], "content": words + self._tag(k) + self.turns[k]["content"][len(words) :]}

    def _unresolved(self, what: str) -> ApportionError:
        return ApportionError(
            f"The tokenizer's chat template {what}, so it cannot be said which text of example '{self._name}' is the "
            "assistant's: mend the template or the example."
        )
