"""How an example becomes text: the tokenizer's chat template where it has one, otherwise prompt, newline, completion."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from apportion._errors import ApportionError
from apportion.tasks.conversation import Conversation, Render, Turn
from apportion.tasks.example import Example

Segments = list[tuple[str, bool]]
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class PlainTemplate:
    """Prompt, newline, completion and the end token, one after the other.

    The pieces are encoded apart, so that a prompt has the same ids in training and when a completion is generated.
    Conversations are their turns' texts, a newline after each that is not the assistant's. ``joint`` says whether the
    pieces are encoded as one text; ``end`` is the id that ends each supervised piece.
    """

    joint = False

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self.end: int | None = tokenizer.eos_token_id
        self._end_text: str = tokenizer.eos_token or ""

    def segments(self, example: Example, dirt: Counter[str]) -> Segments:
        """Return the example's texts, each with whether it is supervised."""
        if example.messages is None:
            if not example.prompt:
                return [(example.completion, True)]
            return [(example.prompt + "\n", False), (example.completion, True)]
        supervised = supervised_turns(example)
        parts: Segments = []
        for k, message in enumerate(example.messages):
            # A conversation that the assistant opens has nothing before it to predict its first token from.
            if k in supervised and parts:
                parts.append((message["content"], True))
            else:
                parts.append((message["content"] + (self._end_text if k in example.muted else "\n"), False))
        return parts


class ChatTemplate:
    """The tokenizer's own chat template; only what the assistant writes is supervised: its turns and their end markers.

    A template that marks the assistant's turns itself, in ``{% generation %}`` blocks, is taken at its word. Of any other
    the turns are found by comparing renderings (`conversation.Conversation`), never by looking for their words.
    """

    joint = True
    end = None

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self.tokenizer = tokenizer
        try:
            self._source: str = tokenizer.get_chat_template()
        except ValueError as error:
            raise ApportionError(f"The tokenizer has chat templates, but none to take: {error}") from None
        self._marks = _GENERATION.search(self._source) is not None
        # Where thinking can be off, the prompt closes an empty thought, and the model is not asked for one.
        thinking = [False, None, True] if "enable_thinking" in self._source else [None]
        self._prompts: list[dict[str, Any]] = [
            {"add_generation_prompt": True} | ({} if on is None else {"enable_thinking": on}) for on in thinking
        ]

    def segments(self, example: Example, dirt: Counter[str]) -> Segments:
        """Return the conversation's texts, each with whether it is supervised.

        Raises:
            ApportionError: The template refuses the conversation, or its turns cannot be told apart in the text.
        """
        if example.messages is None and not example.prompt:
            return [(example.completion + (self.tokenizer.eos_token or ""), True)]
        example = _as_conversation(example)
        turns = list(example.messages or ())
        talk = Conversation(turns, self._renderer(example), self._prompts, self._added, example.id)
        supervised = supervised_turns(example)
        spans = self._marked(talk, supervised) if self._marks else talk.spans(sorted(supervised))
        if not self._marks:
            dirt["unwritten"] += talk.unwritten
            dirt["endless"] += talk.endless
        parts: Segments = []
        at = 0
        for start, end in spans:
            parts += [(talk.text[at:start], False), (talk.text[start:end], True)]
            at = end
        return [part for part in [*parts, (talk.text[at:], False)] if part[0]]

    def _marked(self, talk: Conversation, supervised: set[int]) -> list[tuple[int, int]]:
        """Return the spans of the template's own assistant mask, without those of turns that are not supervised."""
        from transformers.utils.chat_template_utils import render_jinja_template

        _, (spans,) = render_jinja_template(
            conversations=[talk.turns],
            chat_template=self._source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        spans = sorted((start, end) for start, end in spans if start < end)
        if all(k in supervised for k, turn in enumerate(talk.turns) if turn["role"] == "assistant"):
            return spans
        return [(start, end) for start, end in spans if talk.owner(start) in supervised]

    def _renderer(self, example: Example) -> Render:
        from jinja2 import TemplateError

        def render(turns: Sequence[Turn], **settings: Any) -> str:  # noqa: ANN401
            try:
                text: str = self.tokenizer.apply_chat_template(list(turns), tokenize=False, **settings)
            except (TemplateError, TypeError, ValueError) as error:
                raise ApportionError(
                    f"The tokenizer's chat template refuses example '{example.id}': {error}."
                ) from None
            return text

        return render

    @cached_property
    def _added(self) -> re.Pattern[str]:
        """Any token that the tokenizer never cuts."""
        tokens = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def supervised_turns(example: Example) -> set[int]:
    """Return the places of the assistant's turns to be trained on: those that say something and are not muted."""
    return {
        k
        for k, turn in enumerate(example.messages or ())
        if turn["role"] == "assistant" and turn["content"].strip() and k not in example.muted
    }


def _as_conversation(example: Example) -> Example:
    if example.messages is not None:
        return example
    turns = ({"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion})
    return Example(example.prompt, example.completion, example.id, turns)


def template_for(tokenizer: Any) -> PlainTemplate | ChatTemplate:  # noqa: ANN401
    """Return the template that this tokenizer's examples are written in."""
    return ChatTemplate(tokenizer) if getattr(tokenizer, "chat_template", None) else PlainTemplate(tokenizer)
