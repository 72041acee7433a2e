"""From tasks to encoded tasks, through a memory-mapped Arrow cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apportion._errors import ApportionError
from apportion.tasks import cache
from apportion.tasks.collection import SPLITS, TaskCollection, mended
from apportion.tasks.encoded import SCHEMA, EncodedCollection, EncodedSplit, EncodedTask, to_batch
from apportion.tasks.encoder import Encoder
from apportion.tasks.example import Example
from apportion.tasks.goals import Loads
from apportion.tasks.tokenizers import ensure_pad, tokenizer_fingerprint

# Part of every key: raise it when the same examples would be encoded otherwise.
ENCODING = 3


def encode(
    tasks: TaskCollection,
    tokenizer: Any,  # noqa: ANN401
    max_length: int,
    cache_dir: Path | None = None,
) -> EncodedCollection:
    """Encode all splits, with labels on completions only.

    With a chat template the prompt is the user's message and the completion the assistant's; without one they are joined
    by a newline and the end token follows. Every assistant turn of a conversation is supervised, with its end marker and
    without its header (`templates.ChatTemplate`). Plain text is supervised from its second token on, and cut into several
    examples where it is over ``max_length``, every token being supervised in one of them (``truncation.pieces``). Any
    other example over ``max_length`` loses the middle of its prompt first and the end of its completion last
    (``truncation.shorten``). One left without a supervised token is dropped and counted, and so is one whose turns cannot
    be told apart in the chat template's text.

    Args:
        tasks: The tasks.
        tokenizer: A transformers tokenizer; without a pad token, its end token becomes that.
        max_length: Longest example, in tokens.
        cache_dir: Folder of the cache; None is $APPORTION_CACHE, or ~/.cache/apportion.

    Raises:
        ApportionError: No pad and no end token, a tokenizer without a Rust part, or a split left without supervised
            tokens, such as by a chat template that fits none of its examples.
    """
    return _cached(lambda: tasks, tasks.fingerprint, tokenizer, max_length, cache_dir)


def encode_examples(examples: Sequence[Example], tokenizer: Any, max_length: int) -> EncodedSplit:  # noqa: ANN401
    """Encode examples that belong to no task, such as anchors, as `encode` would; blank ones are left out.

    Args:
        examples: The examples.
        tokenizer: A transformers tokenizer.
        max_length: Longest example, in tokens.

    Raises:
        ApportionError: A chat template that does not fit one of them.
    """
    encoder = Encoder(tokenizer, max_length)
    encoded = encoder.encode([mended(example) for example in examples if example.completion.strip()])
    if encoder.unresolved:
        raise ApportionError(encoder.unresolved[0])
    return EncodedSplit(to_batch(*encoded))


def load_encoded(
    spec: Loads,
    tokenizer: Any,  # noqa: ANN401
    max_length: int,
    cache_dir: Path | None = None,
) -> EncodedCollection:
    """Return ``encode(spec.load(), ...)``, parsing the data only if the cache does not hold the result.

    Args:
        spec: The recipe's ``tasks`` block, alone or with its targets.
        tokenizer: A transformers tokenizer.
        max_length: Longest example, in tokens.
        cache_dir: Folder of the cache; None is $APPORTION_CACHE, or ~/.cache/apportion.

    Raises:
        ApportionError: As ``spec.load`` and ``encode``.
    """
    return _cached(spec.load, spec.fingerprint(), tokenizer, max_length, cache_dir)


def _cached(
    load: Callable[[], TaskCollection],
    data: str,
    tokenizer: Any,  # noqa: ANN401
    max_length: int,
    cache_dir: Path | None,
) -> EncodedCollection:
    if max_length < 2:
        raise ApportionError(f"'max_length' is {max_length}: an example needs at least two tokens.")
    ensure_pad(tokenizer)
    parts = (ENCODING, data, tokenizer_fingerprint(tokenizer), max_length)
    key = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    file = cache.folder(cache_dir) / f"encoded-{key}.arrow"
    if not cache.valid(file):
        tasks = load()
        cache.write(file, lambda aside: _write(aside, tasks, Encoder(tokenizer, max_length)))
    return _read(file, key)


def _write(file: Path, tasks: TaskCollection, encoder: Encoder) -> None:
    """Write one record batch a task and split, in order, so that memory holds one at a time; a last one for the rest."""
    metadata = {"names": json.dumps(tasks.names)}
    if any(tasks.instructions):
        metadata["instructions"] = json.dumps(tasks.instructions)
    if tasks.targets:
        metadata["targets"] = json.dumps(tasks.targets)
    schema = SCHEMA.with_metadata(metadata)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for task in tasks:
            for split in SPLITS:
                before = len(encoder.unresolved)
                ids, tokens, keys = encoder.encode(task.split(split))
                if task.split(split) and not ids:
                    kind = "Target" if task.name in tasks.targets else "Task"
                    raise _empty(f"{kind} '{task.name}'", split, encoder.unresolved[before:], encoder.max_length)
                writer.write_batch(to_batch(ids, tokens, keys))
        # Findings are known only now, when the schema is written: they ride as the ids of a batch without tokens.
        findings = [*tasks.findings, *encoder.findings()]
        writer.write_batch(to_batch(findings, [np.zeros(0, np.int32)] * len(findings)))


def _empty(task: str, split: str, unresolved: Sequence[str], max_length: int) -> ApportionError:
    if unresolved:
        return ApportionError(f"{task} has nothing left in its {split} split. {unresolved[-1]}")
    return ApportionError(
        f"{task} has no supervised tokens in its {split} split within {max_length} tokens: raise 'tasks.max_length' or "
        "leave it out."
    )


def _read(file: Path, key: str) -> EncodedCollection:
    reader = pa.ipc.open_file(pa.memory_map(str(file), "r"))
    metadata = reader.schema.metadata
    names = json.loads(metadata[b"names"])
    instructions = json.loads(metadata[b"instructions"]) if b"instructions" in metadata else [""] * len(names)
    tasks = []
    for i, (name, instruction) in enumerate(zip(names, instructions, strict=True)):
        train, validation, test = (EncodedSplit(reader.get_batch(3 * i + k)) for k in range(3))
        tasks.append(EncodedTask(name, train, validation, test, instruction))
    findings = reader.get_batch(3 * len(names)).column("id").to_pylist()
    return EncodedCollection(tasks, findings, key, tuple(json.loads(metadata.get(b"targets", "[]"))))
