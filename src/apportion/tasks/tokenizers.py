"""Tokenizers trained from the tasks' own train splits, and what encoding asks of any tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from apportion._errors import ApportionError, nearest
from apportion.tasks import cache
from apportion.tasks.collection import TaskCollection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from apportion.tasks.goals import Loads

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
Kind = Literal["bpe", "character"]
_LONGEST_WORD = 1000
# Where a word may be that long: whether white space or not, it is all the one or all the other.
_STRETCH = re.compile(rf"(?<!\S)\S{{{_LONGEST_WORD}}}|(?<!\s)\s{{{_LONGEST_WORD}}}")
# Part of the cached tokenizer's key: raise it when training would give another tokenizer from the same data.
_TRAINING = 2


def train_tokenizer(
    tasks: TaskCollection, kind: Kind, vocab_size: int, *, tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the train splits, and on the instructions that stand apart from them.

    ``bpe`` is byte-level, so nothing is unknown to it. ``character`` gives each character seen an id, and one to all
    that were not. Both pad with ``<pad>`` and end with ``<eos>``.

    Args:
        tasks: The tasks; validation and test splits are not looked at.
        kind: "bpe" or "character".
        vocab_size: Size of the vocabulary; for ``character`` the most it may need.
        tokens: Pieces of text, such as tags, that are one token each wherever they stand. They count in the vocabulary,
            teach it nothing else, and are no special tokens: decoding keeps them.

    Raises:
        ApportionError: Unknown kind, a token that is a special one, or a vocabulary too small for alphabet and tokens.
    """
    from transformers import PreTrainedTokenizerFast

    makers = {"bpe": _train_bpe, "character": _train_character}
    if kind not in makers:
        raise ApportionError(f"Unknown tokenizer kind '{kind}'{nearest(kind, makers)}.")
    for token in tokens:
        if token in (PAD, EOS, UNK):
            raise ApportionError(f"'{token}' is a special token of a tokenizer that is trained: choose another text.")
    texts = (piece for text in _texts(tasks) for piece in _between(text, tokens))
    backend = makers[kind](texts, vocab_size, len(tokens))
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNK)


def _between(text: str, tokens: Sequence[str]) -> list[str]:
    """Return what stands between the tokens in a text; the longest token counts where several begin."""
    if not tokens:
        return [text]
    return re.split("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)), text)


def _texts(tasks: TaskCollection) -> Iterator[str]:
    for task in tasks:
        if task.instruction:
            yield f"{task.instruction}\n"
        for example in task.train:
            if example.messages:
                yield from (message["content"] for message in example.messages)
            else:
                yield f"{example.prompt}\n"
                yield example.completion


def _train_bpe(texts: Iterable[str], vocab_size: int, added: int) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + 3 + added
    if vocab_size < least:
        raise ApportionError(f"A byte-level BPE needs a 'vocab_size' of at least {least}, not {vocab_size}.")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - added, special_tokens=[PAD, EOS, UNK], initial_alphabet=alphabet, show_progress=False
    )
    splitter = backend.pre_tokenizer
    backend.train_from_iterator((piece for text in texts for piece in _bounded(text, splitter)), trainer)
    return backend


def _bounded(text: str, splitter: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    """Yield the text, cut within the words, in the splitter's sense, that are over ``_LONGEST_WORD`` characters.

    Training takes a time that is quadratic in the longest word. Between words nothing is cut, so that ordinary text is
    trained on as it is.
    """
    start = 0
    if _STRETCH.search(text):
        for _, (begin, end) in splitter.pre_tokenize_str(text):
            for cut in range(begin + _LONGEST_WORD, end, _LONGEST_WORD):
                yield text[start:cut]
                start = cut
    yield text[start:]


def _train_character(texts: Iterable[str], vocab_size: int, added: int) -> Tokenizer:
    # The newline joins a prompt to its completion, whatever the data holds.
    seen = {"\n"}
    for text in texts:
        seen.update(text)
    vocabulary = [PAD, EOS, UNK, *sorted(seen)]
    if len(vocabulary) + added > vocab_size:
        raise ApportionError(
            f"The tasks use {len(seen)} characters, so a character tokenizer needs a 'vocab_size' of at least "
            f"{len(vocabulary) + added}, not {vocab_size}."
        )
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([PAD, EOS, UNK])
    return backend


def load_tokenizer_trained(
    spec: Loads, kind: Kind, vocab_size: int, cache_dir: Path | None = None, *, tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that ``train_tokenizer`` trains on the spec's tasks, from the cache if it is there.

    Args:
        spec: The recipe's ``tasks`` block; its data is parsed only if the cache misses.
        kind: "bpe" or "character".
        vocab_size: Size of the vocabulary, or the most of it.
        cache_dir: Folder of the cache; None is $APPORTION_CACHE, or ~/.cache/apportion.
        tokens: As `train_tokenizer`'s.

    Raises:
        ApportionError: As ``train_tokenizer`` and ``spec.load``.
    """
    from transformers import PreTrainedTokenizerFast

    parts: tuple[object, ...] = (_TRAINING, spec.fingerprint(), kind, vocab_size)
    # Named only where there are some, so that a tokenizer without them keeps the key that it had.
    parts = (*parts, tuple(tokens)) if tokens else parts
    key = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    folder = cache.folder(cache_dir)
    file = folder / f"tokenizer-{key}.json"
    if not cache.valid(file):
        text = plain_backend(train_tokenizer(spec.load(), kind, vocab_size, tokens=tokens)).to_str()
        cache.write(file, lambda aside: aside.write_text(text, encoding="utf-8"))
    backend = Tokenizer.from_file(str(file))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNK)


def plain_backend(tokenizer: Any) -> Tokenizer:  # noqa: ANN401
    """Return a copy of the tokenizer's Rust part that neither pads nor truncates.

    Raises:
        ApportionError: The tokenizer has none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ApportionError(f"The tokenizer {type(tokenizer).__name__} is a slow one: bring its fast version.")
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def breaks_before_newlines(backend: Tokenizer) -> bool:
    """Say whether no token can span a character that is not white space and a newline after it, by construction.

    So it is with the GPT-2 pattern of a plain byte-level pre-tokenizer: none of its alternatives matches across such a
    place, and none looks back. Patterns of other tokenizers join punctuation with the newlines after it.
    """
    state = json.loads(backend.to_str())
    split = state["pre_tokenizer"] or {}
    plain = split.get("type") == "ByteLevel" and split.get("use_regex") and not split.get("add_prefix_space")
    added = any("\n" in token["content"] or token["lstrip"] or token["rstrip"] for token in state["added_tokens"])
    return bool(plain and state["normalizer"] is None and not added)


def ensure_pad(tokenizer: Any) -> int:  # noqa: ANN401
    """Return the id to pad with, setting the end token as pad token if the tokenizer has none.

    Raises:
        ApportionError: The tokenizer has neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ApportionError("The tokenizer has neither a pad nor an end token: set its 'pad_token'.")
        tokenizer.pad_token = tokenizer.eos_token
    return int(tokenizer.pad_token_id)


def tokenizer_fingerprint(tokenizer: Any) -> str:  # noqa: ANN401
    """Return a digest of all that decides the ids: the tokenizer's JSON, chat template and special tokens."""
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer("")["input_ids"])
    parts = (plain_backend(tokenizer).to_str(), getattr(tokenizer, "chat_template", None), special)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
