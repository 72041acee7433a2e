"""What a hypernetwork's passes cost, from the lengths of what they read: exact, by its own products on small shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from apportion.budget.prices import Cost, Work
from apportion.models.flops import count_products
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.layout import Seq2SeqBatch, opening
from apportion.models.tagi.reading import Instructed
from apportion.models.tagi.slots import Given
from apportion.models.tagi.splitting import cut_of
from apportion.tasks.batches import Batch, collate
from apportion.tasks.encoded import IGNORED

KINDS = ("forward", "backward", "tangent")
# As few (n, m, s) as settle a polynomial of second degree: one, each length at two more, each two of them together.
_LENGTHS = (
    *[(2, 2, 3), (5, 2, 3), (7, 2, 3), (2, 3, 3), (2, 6, 3), (2, 2, 4), (2, 2, 8)],
    *[(7, 6, 3), (7, 2, 8), (2, 6, 8)],
)


@dataclass(frozen=True)
class TagiPrices:
    """FLOPs of a `TagiModel`'s passes.

    A pass does three things, and each is a polynomial in the lengths n (tokens before the first supervised one), m (the
    rest) and s (the instruction): ``reading`` an instruction and ``writing`` its adapter, once for each task of a batch, and
    ``answering`` each example. ``teaching`` is the teacher's pass and ``aligning`` the comparison of a task's adapter with
    its LoRA teacher's, which training adds. The coefficients are solved from the products that are made at small lengths.

    ``lengths`` are those of the instructions, ``before`` how many tokens each puts before an example for the teacher: one
    less where both open with the start token, or where it has an end token. ``closes`` is 1 where the encoder reads an end
    token behind each text, else 0.

    Conventions as in ``models.flops``. A frozen base reads each instruction once in a run: ``reading`` is charged apart
    then, by `ahead`, and is no part of a step.
    """

    itemised: ClassVar[bool] = True

    lengths: tuple[int, ...]
    before: tuple[int, ...]
    closes: int
    frozen: bool
    pretrains: bool
    reading: dict[str, np.ndarray]
    writing: dict[str, np.ndarray]
    answering: dict[str, np.ndarray]
    teaching: np.ndarray
    aligning: dict[int, float]

    @classmethod
    def of(cls, model: TagiModel) -> TagiPrices:
        """Measure a model, on the meta device or any other; its parameters are left alone.

        Raises:
            ApportionError: The model uses a kind of product that has no price.
        """
        tasks = {s: _Task.of(model, s) for s in sorted({s for _, _, s in _LENGTHS})}
        solved = {
            "reading": _solve([(0, 0, s) for s in tasks], [task.reading for task in tasks.values()]),
            "writing": _solve([(0, 0, s) for s in tasks], [task.writing for task in tasks.values()]),
            "answering": _solve(_LENGTHS, [_answering(model, n, m, tasks[s]) for n, m, s in _LENGTHS]),
            "teaching": _solve(_LENGTHS, [_teaching(model, s + n, m) for n, m, s in _LENGTHS]),
        }
        given = next(iter(tasks.values())).given
        compared = count_products(model, lambda: model.distiller.distances(given.factors))
        lengths = tuple(len(ids) for ids in model.reader.instructions)
        start = getattr(model.config, "bos_token_id", None)
        opens = [start is not None and int(ids[0]) == start for ids in model.reader.instructions]
        return cls(
            lengths,
            tuple(
                len(opening(ids, model.end)) - opened
                for ids, opened in zip(model.reader.instructions, opens, strict=True)
            ),
            int(model.end is not None),
            model.spec.frozen,
            model.spec.stage == "pretrain",
            solved["reading"],
            solved["writing"],
            solved["answering"],
            solved["teaching"]["forward"],
            dict.fromkeys(model.distiller.targets, float(compared["forward"] + compared["backward"])),
        )

    def forward(self, work: Work) -> float:
        """Price a forward pass, without the teacher."""
        return self._pass(work, "forward")

    def backward(self, work: Work) -> float:
        """Price the backward pass of the loss on labels, without what training adds."""
        return self._pass(work, "backward")

    def train(self, work: Work, *, recompute: bool = False) -> float:
        """Price a training step: forward, backward, the teacher's forward, and the alignment with LoRA teachers."""
        added = 0.0
        if not self.pretrains:
            read = np.array([(n + self.closes, m, self.before[task]) for task, n, m in work.examples])
            added = float(_monomials(read).sum(0) @ self.teaching)
            added += sum(self.aligning.get(task, 0.0) for task in {task for task, _, _ in work.examples})
        return self.forward(work) + self.backward(work) + added

    def jvp(self, work: Work) -> float:
        """Price a forward-mode pass along a direction of the trainable parameters."""
        return self._pass(work, "forward") + self._pass(work, "tangent")

    def in_run_read(self, tokens: float) -> float:
        """Return 0: there is no in-run read through a hypernetwork."""
        return 0.0

    def ahead(self) -> Cost:
        """Price reading every task's instruction once, before training; nothing where the base changes."""
        if not self.frozen or self.pretrains:
            return Cost()
        s = np.array(self.lengths, dtype=np.float64)
        flops = float(_monomials(np.stack([0 * s, 0 * s, s], 1)).sum(0) @ self.reading["forward"])
        return Cost(0.0, float(sum(self.lengths)), flops)

    def _pass(self, work: Work, kind: str) -> float:
        examples = self._examples(work)
        if self.pretrains:  # each text has an instruction of its own
            once = examples
        else:
            tasks = sorted({task for task, _, _ in work.examples})
            once = np.array([(0.0, 0.0, self.lengths[task]) for task in tasks])
        per_task = self.writing[kind] + (0 if self.frozen and not self.pretrains else self.reading[kind])
        return float(_monomials(once).sum(0) @ per_task + _monomials(examples).sum(0) @ self.answering[kind])

    def _examples(self, work: Work) -> np.ndarray:
        """Return n, m and s of each example."""
        assert work.examples or not work.tokens, "a hypernetwork's price needs the examples' lengths"
        if not self.pretrains:
            return np.array([(n + self.closes, m, self.lengths[task]) for task, n, m in work.examples])
        cuts = [cut_of(n) for _, n, _ in work.examples]
        texts = zip(work.examples, cuts, strict=True)
        return np.array([(n - s + self.closes, m, s + self.closes) for (_, n, m), s in texts])


def _monomials(lengths: np.ndarray) -> np.ndarray:
    n, m, s = lengths.reshape(-1, 3).astype(np.float64).T
    return np.stack([np.ones_like(n), n, m, s, n * n, m * m, s * s, n * m, n * s, m * s], 1)


def _solve(lengths: Sequence[tuple[int, int, int]], counts: Sequence[dict[str, int]]) -> dict[str, np.ndarray]:
    """Return the coefficients of what was counted at these lengths; 0 for terms of a length that was 0."""
    terms = _monomials(np.array(lengths))
    solved: dict[str, np.ndarray] = {}
    for kind in KINDS:
        found, *_ = np.linalg.lstsq(terms, np.array([count[kind] for count in counts], dtype=np.float64), rcond=None)
        # Products cost whole numbers a token, and pairs too: what is left over is rounding.
        solved[kind] = np.asarray(np.round(found, 3))
    return solved


@dataclass(frozen=True)
class _Task:
    """One instruction read and its adapter written, with the products of both."""

    seen: Instructed
    given: Given
    reading: dict[str, int]
    writing: dict[str, int]

    @classmethod
    def of(cls, model: TagiModel, s: int) -> _Task:
        device = model.pool.weight.device
        ids = torch.ones((1, s), dtype=torch.long, device=device)
        # Nothing on the meta device can be looked into: without a mask a decoder would look for packed texts, with one an
        # encoder for padding.
        mask = None if model.config.is_encoder_decoder else torch.ones_like(ids)
        seen: list[Instructed] = []
        given: list[Given] = []
        reading = count_products(model, lambda: seen.append(model.reader.read(ids, mask)))
        rows = torch.zeros(1, dtype=torch.long, device=device)
        writing = count_products(model, lambda: given.append(model.given(seen[0], rows)))
        return cls(seen[0], given[0], reading, writing)


def _answering(model: TagiModel, n: int, m: int, task: _Task) -> dict[str, int]:
    example = _example(model, n, m)
    return count_products(model, lambda: model.logits(example, task.given, task.seen))


def _teaching(model: TagiModel, context: int, m: int) -> dict[str, int]:
    if not model.spec.distils:
        return dict.fromkeys(KINDS, 0)
    longer = _example(model, context, m)
    return count_products(model.distiller.teacher, lambda: model.distiller.logits_of_teacher(longer))


def _example(model: TagiModel, context: int, rest: int) -> Batch | Seq2SeqBatch:
    device = model.pool.weight.device
    return (_parts if model.config.is_encoder_decoder else _batch)(context, rest, device)


def _batch(context: int, rest: int, device: torch.device) -> Batch:
    """Return a batch of one example without padding, which is not priced."""
    length = context + rest
    labels = np.full(length, IGNORED)
    labels[context:] = 1
    batch = collate([(np.ones(length, np.int64), labels)], [0], 0).to(device)
    return replace(batch, input_ids=batch.input_ids[:, :length], attention_mask=batch.attention_mask[:, :length])


def _parts(context: int, rest: int, device: torch.device) -> Seq2SeqBatch:
    """Return one example as an encoder-decoder reads it, without masks, whose values nothing on the meta device can read."""
    ids = torch.ones((1, context + rest), dtype=torch.long, device=device)
    return Seq2SeqBatch(ids[:, :context], None, ids[:, context:], None, torch.arange(rest, device=device))
