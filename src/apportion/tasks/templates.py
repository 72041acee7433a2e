"""How an example becomes text: the tokenizer's chat template where it has one, otherwise prompt, newline, completion."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apportion._errors import ApportionError
from apportion.tasks.example import Example

Segments = list[tuple[str, bool]]


class PlainTemplate:
    """Prompt, newline, completion and the end token, one after the other.

    The pieces are encoded apart, so that a prompt has the same ids in training and when a completion is generated.
    Conversations are their turns' texts, a newline after each that is not the assistant's. ``joint`` says whether the
    pieces are encoded as one text; ``end`` is the id that ends each supervised piece.
    """

    joint = False

    def __init__(self, end: int | None) -> None:
        self.end = end

    def segments(self, example: Example, fallbacks: Counter[str]) -> Segments:
        """Return the example's texts, each with whether it is supervised."""
        if example.messages is None:
            if not example.prompt:
                return [(example.completion, True)]
            return [(example.prompt + "\n", False), (example.completion, True)]
        parts: Segments = []
        for message in example.messages:
            if message["role"] == "assistant":
                # A conversation that the assistant opens has nothing before it to predict its first token from.
                parts.append((message["content"], True) if parts else (message["content"] + "\n", False))
            else:
                parts.append((message["content"] + "\n", False))
        return parts


class ChatTemplate:
    """The tokenizer's own chat template; whatever it writes for the assistant's turns is supervised.

    A turn's text runs from the end of the conversation before it, with the generation prompt, to the end of the
    conversation with it. Where a template does not write the one as a prefix of the other, the turn's words are looked
    up in the text instead, and the fall-back is counted.
    """

    joint = True
    end = None

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self.tokenizer = tokenizer

    def segments(self, example: Example, fallbacks: Counter[str]) -> Segments:
        """Return the conversation's texts, each with whether it is supervised.

        Raises:
            ApportionError: The template refuses the conversation or leaves an assistant's turn out of its text.
        """
        if example.messages is None and not example.prompt:
            return [(example.completion + (self.tokenizer.eos_token or ""), True)]
        turns = list(example.messages or ()) or [
            {"role": "user", "content": example.prompt},
            {"role": "assistant", "content": example.completion},
        ]
        full = self._render(turns, False, example)
        parts: Segments = []
        at = 0
        for k, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            start, end = self._span(turns, k, full, at, example, fallbacks)
            parts += [(full[at:start], False), (full[start:end], True)]
            at = end
        if at < len(full):
            parts.append((full[at:], False))
        return [part for part in parts if part[0]]

    def _span(
        self, turns: list[dict[str, str]], k: int, full: str, at: int, example: Example, fallbacks: Counter[str]
    ) -> tuple[int, int]:
        before = self._render(turns[:k], True, example) if k else ""
        after = full if k == len(turns) - 1 else self._render(turns[: k + 1], False, example)
        if k and full.startswith(before) and full.startswith(after) and at <= len(before) < len(after):
            return len(before), len(after)
        words = turns[k]["content"].strip()
        start = full.find(words, at) if k < len(turns) - 1 else full.rfind(words)
        if not words or start < at:
            raise ApportionError(
                f"The tokenizer's chat template leaves out the assistant's turn {k} of example '{example.id}': "
                "mend the template or the example."
            )
        fallbacks["template"] += 1
        return start, len(full) if k == len(turns) - 1 else start + len(words)

    def _render(self, turns: list[dict[str, str]], generation: bool, example: Example) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except TemplateError as error:
            raise ApportionError(f"The tokenizer's chat template refuses example '{example.id}': {error}.") from None
        return text


def template_for(tokenizer: Any) -> PlainTemplate | ChatTemplate:  # noqa: ANN401
    """Return the template that this tokenizer's examples are written in."""
    if getattr(tokenizer, "chat_template", None):
        return ChatTemplate(tokenizer)
    return PlainTemplate(tokenizer.eos_token_id)
