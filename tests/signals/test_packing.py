"""Examples that share a row neither see nor change each other: losses, gradients, products and counters stay theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apportion._errors import ApportionError
from apportion.objectives import Worst
from apportion.signals.in_run import InRunRead
from apportion.signals.inner_step import SgdStep
from apportion.signals.losses import example_losses, example_nll
from apportion.signals.meta_gradient import direction, forward, trainable
from apportion.tasks.batches import collate, pack
from tests.tiny import ARCHITECTURES, norms_in_double, tiny_model

EVERY_MODEL = [(a, lora) for a in ARCHITECTURES for lora in (False, True)]


def worst(tau):
    return Worst(tau=tau).at({"importance": torch.ones(3)})


EXACT = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
ROOM = 30


@pytest.fixture(autouse=True)
def _double_where_double():
    with norms_in_double():
        yield


def examples_of(seed, n=9, longest=22):
    """Some longer than Gemma's window of 8, so that a wrong one would be seen."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(n):
        length = int(rng.integers(3, longest))
        ids = rng.integers(3, 61, size=length)
        labels = ids.copy()
        labels[: int(rng.integers(1, length))] = -100
        examples.append((ids, labels))
    return examples, [k % 3 for k in range(n)]


def both(seed, room=ROOM):
    examples, tasks = examples_of(seed)
    rows = pack([len(ids) for ids, _ in examples], room)
    packed = collate(examples, tasks, 0, rows)
    assert packed.input_ids.shape[0] < len(packed), "nothing shares a row: the test would test nothing"
    return collate(examples, tasks, 0), packed


def relative(a, b):
    return float(((a - b).norm() / b.norm()).detach())


def gradient(model, loss):
    gradients = torch.autograd.grad(loss, list(trainable(model).values()), materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_losses_and_gradients_are_those_of_examples_apart(architecture, lora, dtype, tolerance):
    model = tiny_model(architecture, lora=lora, dtype=dtype)
    apart, packed = both(0)
    assert relative(example_losses(model, packed), example_losses(model, apart)) < tolerance
    assert torch.equal(example_nll(model, packed)[1], example_nll(model, apart)[1])
    # Unequal factors, as example weights are: each loss must be its own example's.
    factors = torch.linspace(0.2, 2.0, len(apart), dtype=dtype)
    mine, theirs = (gradient(model, (factors * example_losses(model, batch)).sum()) for batch in (packed, apart))
    assert relative(mine, theirs) < tolerance


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_example_does_not_see_its_neighbours(architecture, attention):
    model = tiny_model(architecture, attn_implementation=attention).eval()
    assert model.config._attn_implementation == attention
    (first, second), others = examples_of(1, n=2, longest=14)[0], examples_of(2, n=1, longest=14)[0]
    with torch.no_grad():
        before, after = (
            example_losses(model, collate([neighbour, second], [0, 0], 0, [[0, 1]])) for neighbour in (first, *others)
        )
    assert before[0] != after[0]
    assert relative(before[1:], after[1:]) < 1e-6


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_the_in_run_read_is_split_by_example(architecture, lora, dtype, tolerance):
    model = tiny_model(architecture, lora=lora, dtype=dtype)
    u = {name: torch.randn_like(parameter) for name, parameter in trainable(model).items()}
    scores = []
    for batch in both(3):
        reader = InRunRead(model)
        reader.set_direction(u)
        with reader.reading(batch, torch.device("cpu")) as read:
            example_losses(model, batch).sum().backward()
        scores.append(read)
    assert relative(scores[1], scores[0]) < tolerance


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
def test_the_direction_and_the_exact_estimator_take_packed_batches(architecture, lora):
    model = tiny_model(architecture, lora=lora, dtype=torch.float64)
    pairs = [both(4), both(5)]
    for count in (1, 2):  # one batch has a path of its own
        (mine, v), (theirs, w) = (direction(model, [pair[k] for pair in pairs[:count]], 3, worst(0.3)) for k in (1, 0))
        assert relative(v, w) < 1e-10
        assert (
            relative(torch.cat([g.flatten() for g in mine.values()]), torch.cat([g.flatten() for g in theirs.values()]))
            < 1e-10
        )
    p, inner = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), SgdStep(lr=1e-2)
    apart, packed = (forward(model, pairs[0][k], pairs[1][k], p, inner, worst(0.3)) for k in (0, 1))
    assert relative(packed, apart) < 1e-10


def test_a_packed_batch_says_where_everything_is():
    examples = [(np.array([5, 6, 7]), np.array([-100, 6, 7])), (np.array([8, 9]), np.array([-100, 9]))]
    examples.append((np.array([3, 4, 5, 6]), np.array([-100, -100, -100, 6])))
    batch = collate(examples, [2, 0, 1], 0, [[1, 0], [2]])
    assert batch.input_ids.tolist() == [[8, 9, 5, 6, 7, 0, 0, 0], [3, 4, 5, 6, 0, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [2] * 8]
    assert batch.tasks.tolist() == [2, 0, 1]
    assert batch.positions.tolist() == [0, 2, 3, 10]
    assert batch.targets.tolist() == [9, 6, 7, 6]
    assert batch.examples.tolist() == [1, 0, 0, 2]
    assert (len(batch), batch.supervised, batch.processed, batch.padded, batch.work.pairs) == (
        3,
        4,
        9,
        16,
        9 + 4 + 16,
    )


def test_counters_other_than_padding_do_not_depend_on_the_layout():
    apart, packed = both(6)
    for counter in ("supervised", "processed", "work"):
        assert getattr(apart, counter) == getattr(packed, counter)
    assert packed.padded < apart.padded
    assert torch.equal(apart.tasks, packed.tasks)


@pytest.mark.parametrize("seed", range(20))
def test_rows_hold_every_example_once_and_never_overflow(seed):
    rng = np.random.default_rng(seed)
    room = int(rng.integers(5, 60))
    lengths = rng.integers(1, room + 1, size=int(rng.integers(1, 40))).tolist()
    rows = pack(lengths, room)
    assert sorted(k for row in rows for k in row) == list(range(len(lengths)))
    sums = [sum(lengths[k] for k in row) for row in rows]
    assert max(sums) <= room and sums == sorted(sums)
    assert all(a + b > room for i, a in enumerate(sums) for b in sums[:i]), "two rows would fit into one"


def test_pack_fills_rows_that_can_be_filled():
    assert pack([6, 4, 7, 3], 10) == [[2, 3], [0, 1]]
    assert pack([], 10) == []


def test_a_batch_of_no_example_is_padding_alone_and_leaves_gradients_at_zero():
    idle = collate([], [], 0, [])
    assert (len(idle), idle.supervised, idle.processed, idle.padded) == (0, 0, 0, 8)
    model = tiny_model("llama")
    example_losses(model, idle).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_row_as_long_as_there_are_heads_is_read_right():
    """Gemma's norms see (rows, heads, positions, ...): 8 heads on 8 positions look the same either way."""
    model = tiny_model("gemma3_text", dtype=torch.float64, num_attention_heads=8)
    u = {name: torch.randn_like(parameter) for name, parameter in trainable(model).items()}
    reader = InRunRead(model)
    reader.set_direction(u)
    square = collate(
        [(np.array([5, 6, 7]), np.array([-100, 6, 7])), (np.array([8, 9]), np.array([-100, 9]))], [0, 0], 0, [[0, 1]]
    )
    scores = []
    for batch in (both(8)[1], square):
        model.zero_grad()
        with reader.reading(batch, torch.device("cpu")) as read:
            example_losses(model, batch)[0].backward()
        scores.append(read)
    gradient_of_first = torch.cat([p.grad.flatten() for p in trainable(model).values()])
    assert relative(scores[1][0], gradient_of_first @ torch.cat([v.flatten() for v in u.values()])) < 1e-10
    assert scores[1][1] == 0


def test_a_layer_that_flattens_rows_is_refused_by_name():
    class Flat(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).flatten(0, 1)

    _, packed = both(7)
    model = torch.nn.Sequential(torch.nn.Embedding(61, 4), Flat(4, 2))
    reader = InRunRead(model)
    reader.set_direction({name: torch.ones_like(p) for name, p in model.named_parameters()})
    with reader.reading(packed, torch.device("cpu")):
        loss = model(packed.input_ids).sum()
        with pytest.raises(ApportionError, match="'1' does not keep examples apart"):
            loss.backward()
