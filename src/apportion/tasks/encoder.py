"""Examples to token ids with completion-only labels, in batches, on all cores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from apportion._errors import ApportionError
from apportion.tasks.example import Example
from apportion.tasks.findings import sentences
from apportion.tasks.splits import key_of
from apportion.tasks.templates import Segments, template_for
from apportion.tasks.tokenizers import breaks_before_newlines, plain_backend
from apportion.tasks.truncation import pieces, shorten

_CHUNK = 2000
_PART = 250
# Stands for the completion where a prompt is all there is.
_COMPLETION = "completion"


class Encoder:
    """Encodes examples with one tokenizer and length; ``dirt`` counts what had to be cut or dropped.

    ``unresolved`` says what is wrong with each example that the chat template could not be applied to.

    Args:
        tokenizer: A transformers tokenizer.
        max_length: Longest example, in tokens.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:  # noqa: ANN401
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.dirt: Counter[str] = Counter()
        self.unresolved: list[str] = []
        self._template = template_for(tokenizer)
        self._backend = plain_backend(tokenizer)
        self._cuttable = breaks_before_newlines(self._backend)
        special = tokenizer("")["input_ids"]
        opens = not self._template.joint and special and special[0] == tokenizer.bos_token_id
        self._start = np.array(special[:1] if opens else [], np.int32)

    def encode(self, examples: Sequence[Example]) -> tuple[list[str], list[np.ndarray], list[int]]:
        """Return ids, signed tokens and keys of the examples that keep a supervised token; a long plain text is several.

        Tokens are (length,) int32: the id ``t`` as context, ``~t`` where supervised; never supervised at position 0.
        Examples of one key go by one prompt (`splits.key_of`), all pieces of a text among them.
        """
        ids: list[str] = []
        tokens: list[np.ndarray] = []
        keys: list[int] = []
        for at in range(0, len(examples), _CHUNK):
            chunk, segments = self._written(examples[at : at + _CHUNK])
            pieces = self._joint(segments) if self._template.joint else self._apart(segments)
            for example, parts, texts in zip(chunk, pieces, segments, strict=True):
                plain = not example.prompt and example.messages is None
                for number, signed in enumerate(self._fit(parts, [supervised for _, supervised in texts], plain)):
                    ids.append(f"{example.id}:{number}" if number else example.id)
                    tokens.append(signed)
                    keys.append(key_of(example))
        return ids, tokens, keys

    def _written(self, examples: Sequence[Example]) -> tuple[list[Example], list[Segments]]:
        """Return the examples that the template can write, and their texts."""
        kept: list[Example] = []
        segments: list[Segments] = []
        for example in examples:
            try:
                segments.append(self._template.segments(example, self.dirt))
                kept.append(example)
            except ApportionError as error:
                self.dirt["unresolved"] += 1
                self.unresolved.append(str(error))
        return kept, segments

    def prompts(self, texts: Sequence[str], room: int) -> list[np.ndarray]:
        """Return what stands before a completion of ``room`` tokens in an example of each prompt, (length,) int32.

        Raises:
            ApportionError: A prompt is empty, and the tokenizer starts no text with a token of its own.
        """
        segments = [
            self._template.segments(Example(text, _COMPLETION, str(k)), self.dirt) for k, text in enumerate(texts)
        ]
        pieces = self._joint(segments) if self._template.joint else self._apart(segments)
        ids = []
        for k, (parts, pairs) in enumerate(zip(pieces, segments, strict=True)):
            first = [supervised for _, supervised in pairs].index(True)
            prompt = np.concatenate([self._start, *parts[:first]])
            if not len(prompt):
                raise ApportionError(f"Prompt {k} is empty: a model needs at least one token to go on from.")
            fitted, cut, _ = shorten(prompt, np.full(room, -1, np.int32), self.max_length)
            self.dirt["cut_prompt"] += cut
            ids.append(fitted[fitted >= 0])
        return ids

    def instruction(self, text: str) -> np.ndarray:
        """Return the ids of an instruction that stands by itself, (length,) int32: start token, text, blank line."""
        return np.concatenate([self._start, *self._batch([text + "\n\n"])])

    def _fit(self, parts: list[np.ndarray], supervised: list[bool], plain: bool) -> list[np.ndarray]:
        """Return the example within the length: shortened, a plain text in pieces, or none without supervised tokens."""
        first = supervised.index(True) if True in supervised else len(parts)
        signed = [~part if label else part for part, label in zip(parts, supervised, strict=True)]
        prompt = np.concatenate([self._start, *signed[:first]])
        rest = np.concatenate(signed[first:]) if first < len(signed) else self._start[:0]
        if not len(prompt) and len(rest):
            # Nothing predicts the first token: it is context, as the prompt of the rest.
            prompt, rest = np.where(rest[:1] < 0, ~rest[:1], rest[:1]), rest[1:]
        if plain and len(prompt) + len(rest) > self.max_length:
            self.dirt["pieces"] += 1
            return pieces(np.concatenate([prompt, rest]), self.max_length)
        fitted, cut_prompt, cut_rest = shorten(prompt, rest, self.max_length)
        self.dirt["cut_prompt"] += cut_prompt
        self.dirt["cut_rest"] += cut_rest
        if not (fitted < 0).any():
            self.dirt["dropped"] += 1
            return []
        return [fitted]

    def _apart(self, segments: list[Segments]) -> Iterator[list[np.ndarray]]:
        end = np.array([] if self._template.end is None else [self._template.end], np.int32)
        cut = [[self._cut(text) for text, _ in parts] for parts in segments]
        # Prompts of one task share their instruction: each distinct piece is encoded once.
        distinct = list(dict.fromkeys(piece for parts in cut for pieces in parts for piece in pieces))
        known = dict(zip(distinct, self._batch(distinct), strict=True))
        for texts, parts in zip(cut, segments, strict=True):
            yield [
                np.concatenate([*(known[piece] for piece in pieces), *([end] if label else [])])
                for pieces, (_, label) in zip(texts, parts, strict=True)
            ]

    def _cut(self, text: str) -> tuple[str, ...]:
        """Cut a text before its first blank line, if that cannot change its ids."""
        at = text.find("\n\n") if self._cuttable else -1
        return (text[:at], text[at:]) if at > 0 and not text[at - 1].isspace() else (text,)

    def _joint(self, segments: list[Segments]) -> Iterator[list[np.ndarray]]:
        """Encode each text so far; a segment is what it adds, if the ids before it stay as they were."""
        texts = [[text for text, _ in parts] for parts in segments]
        grown = [["".join(parts[: k + 1]) for k in range(len(parts))] for parts in texts]
        encoded = iter(self._batch([text for parts in grown for text in parts]))
        for parts in texts:
            before = np.zeros(0, np.int32)
            pieces = []
            for text in parts:
                after = next(encoded)
                if np.array_equal(after[: len(before)], before):
                    pieces.append(after[len(before) :])
                else:
                    self.dirt["boundary"] += 1
                    pieces.append(self._batch([text])[0])
                before = after
            yield pieces

    def _batch(self, texts: list[str]) -> list[np.ndarray]:
        # Tokenizers leaves its own threads off unless an environment variable says otherwise; it frees the interpreter
        # while it encodes, so plain threads use all cores. Each part is small, so that the cores finish together.
        parts = [texts[at : at + _PART] for at in range(0, len(texts), _PART)]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            done = pool.map(partial(self._backend.encode_batch_fast, add_special_tokens=False), parts)
            return [np.array(encoding.ids, np.int32) for part in done for encoding in part]

    def findings(self) -> list[str]:
        """Return what was cut or dropped, as plain sentences."""
        first = f"dropped. The first: {self.unresolved[0].rstrip('.')}" if self.unresolved else ""
        length = f"{self.max_length} tokens"
        said = {
            "cut_prompt": ("prompt", f"in examples longer than {length}: the middle cut out"),
            "cut_rest": ("completion", f"in examples longer than {length}: the end cut off"),
            "pieces": ("plain text", f"longer than {length}: cut into several examples"),
            "dropped": ("example", f"without a supervised token within {length}: dropped"),
            "boundary": ("turn", "merging with the text before it into one token: encoded apart"),
            "unresolved": ("example", f"whose turns cannot be told apart in the chat template's text: {first}"),
            "endless": ("assistant turn", "after which the chat template writes no end marker of its own"),
            "unwritten": ("turn", "left out of its text by the chat template"),
        }
        return sentences(self.dirt, said)
