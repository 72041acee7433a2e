"""The three estimators agree with each other and with finite differences, on every architecture, full and LoRA."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from apportion._errors import ApportionError
from apportion.objectives import Worst
from apportion.objectives.worst import smooth_worst
from apportion.signals.in_run import InRunRead, check_readable
from apportion.signals.inner_step import FOLLOWED, AdamStep, SgdStep, check_followed, of_optimizer
from apportion.signals.losses import example_losses, task_losses
from apportion.signals.meta_gradient import direction, forward, trainable, unrolled
from apportion.tasks.batches import collate
from tests.references import meta_gradient as reference
from tests.tiny import ARCHITECTURES, OTHERS, norms_in_double, other_model, tiny_model

T = 3


def worst(tau, count=T):
    return Worst(tau=tau).at({"importance": torch.ones(count)})


EVERY_MODEL = [(a, lora) for a in ARCHITECTURES for lora in (False, True)]


@pytest.fixture(autouse=True)
def _double_where_double():
    with norms_in_double():
        yield


def assert_readable(architecture, lora=False, packed=False):
    with torch.device("meta"):
        model = other_model(architecture, lora)
    check_readable(model, packed)


def example_losses_apart(model, batch):
    """Each example's loss with a graph of its own."""
    return [example_losses(model, batch)[k] for k in range(len(batch))]


def make_batch(seed, per_task=2, n_tasks=T, vocab=61, longest=14):
    rng = np.random.default_rng(seed)
    examples, tasks = [], []
    for task in range(n_tasks):
        for _ in range(per_task):
            n = int(rng.integers(5, longest))
            ids = rng.integers(3, vocab, size=n)
            labels = ids.copy()
            labels[: int(rng.integers(1, n - 2))] = -100
            examples.append((ids, labels))
            tasks.append(task)
    return collate(examples, tasks, pad_id=0)


def warm_adam(model, lr=1e-2, steps=3):
    """Adam's moments after a few real steps, as they are met in training."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    for seed in range(steps):
        example_losses(model, make_batch(100 + seed)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return of_optimizer(optimizer, {p: n for n, p in model.named_parameters()}, lr)


def inner_step(kind, model):
    return SgdStep(lr=1e-2) if kind == "sgd" else warm_adam(model)


def relative(a, b):
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_forward_equals_unrolled(architecture, lora, kind, dtype, tolerance):
    model = tiny_model(architecture, lora=lora, dtype=dtype)
    inner = inner_step(kind, model)
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    arguments = (model, make_batch(0), make_batch(1), p, inner, worst(0.3))
    assert relative(forward(*arguments), unrolled(*arguments)) < tolerance


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize(("architecture", "lora"), [("llama", False), ("gemma3_text", True)])
def test_unrolled_equals_finite_differences(architecture, lora, kind):
    model = tiny_model(architecture, lora=lora, dtype=torch.float64)
    inner = inner_step(kind, model)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    train, validation = make_batch(2), make_batch(3)
    slow = reference.finite_difference(model, train, validation, p, inner, 0.5)
    assert relative(unrolled(model, train, validation, p, inner, worst(0.5)), slow) < 1e-6


def read(model, batch, u, scale=None):
    reader = InRunRead(model)
    reader.set_direction(u)
    with reader.reading(batch, torch.device("cpu")) as scores:
        loss = example_losses(model, batch)
        (loss.mean() if scale is None else (loss * scale).sum()).backward()
    return scores * len(batch) if scale is None else scores


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_in_run_reads_each_examples_product_with_u(architecture, lora, dtype, tolerance):
    model = tiny_model(architecture, lora=lora, dtype=dtype)
    batch = make_batch(4)
    u, _ = direction(model, [make_batch(5)], T, worst(0.3))
    flat_u = reference.flat(u.values())
    slow = torch.stack(
        [reference.gradient(model, reference.one_example_loss(model, batch, k)) @ flat_u for k in range(len(batch))]
    )
    assert relative(read(model, batch, u), slow) < tolerance


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", OTHERS)
def test_in_run_reads_positions_that_rows_share_and_rows_laid_end_to_end(architecture, lora):
    model = other_model(architecture, lora).double()
    assert_readable(architecture, lora)
    batch = make_batch(4)
    u, _ = direction(model, [make_batch(5)], T, worst(0.3))
    slow = torch.stack(
        [
            reference.gradient(model, reference.one_example_loss(model, batch, k)) @ reference.flat(u.values())
            for k in range(len(batch))
        ]
    )
    model.zero_grad()
    assert relative(read(model, batch, u), slow) < 1e-8  # GPT-Neo's attention is in fp32
    seen = {name: parameter.grad for name, parameter in trainable(model).items()}
    model.zero_grad()
    example_losses(model, batch).mean().backward()
    for name, parameter in trainable(model).items():
        torch.testing.assert_close(parameter.grad, seen[name])


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_in_run_reads_packed_rows_of_learned_positions(architecture):
    """OPT's look-up takes its positions by keyword; packed ones start again within a row."""
    model = other_model(architecture).double()
    batch = make_batch(4)
    examples = [
        (batch.input_ids[k][: int(batch.attention_mask[k].sum())].numpy(), labels_of(batch, k))
        for k in range(len(batch))
    ]
    rows = [[0, 1, 2], [3, 4], [5]]
    packed = collate(examples, batch.tasks.tolist(), 0, rows)
    assert_readable(architecture, packed=True)
    u, _ = direction(model, [make_batch(5)], T, worst(0.3))
    slow = torch.stack(
        [reference.gradient(model, loss) @ reference.flat(u.values()) for loss in example_losses_apart(model, packed)]
    )
    got = read(model, packed, u)
    torch.testing.assert_close(got.sum(), slow.sum())
    if architecture == "gpt2":  # transformers' OPT lets packed examples see each other, so their losses share gradients
        assert relative(got, slow) < 1e-10


def test_a_model_that_writes_over_its_layers_outputs_is_refused_on_its_shapes():
    with pytest.raises(ApportionError, match=r"'falcon' writes over.*'forward'"):
        assert_readable("falcon")


def test_a_model_that_mixes_its_rows_is_refused_on_its_shapes():
    class Mixing(nn.Module):
        config = SimpleNamespace(_attn_implementation="sdpa", model_type="mixing")

        def __init__(self):
            super().__init__()
            self.embed, self.up = nn.Embedding(9, 4), nn.Linear(4, 9)

        def set_attn_implementation(self, name):
            self.config._attn_implementation = name

        def forward(self, input_ids, attention_mask, use_cache):
            return SimpleNamespace(logits=self.up(self.embed(input_ids).transpose(0, 1)))

    with torch.device("meta"):
        model = Mixing()
    with pytest.raises(ApportionError, match="'up' does not keep examples apart"):
        check_readable(model, packed=False)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
def test_what_can_be_read_is_found_so_on_its_shapes_which_stay_as_they_were(architecture, lora, packed):
    with torch.device("meta"):
        model = tiny_model(architecture, lora=lora)
    attention = model.config._attn_implementation
    check_readable(model, packed)
    assert model.config._attn_implementation == attention
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
def test_in_run_equals_unrolled_as_the_step_vanishes(architecture, lora):
    model = tiny_model(architecture, lora=lora, dtype=torch.float64)
    train, validation = make_batch(6), make_batch(7)
    p = torch.full((T,), 1 / T, dtype=torch.float64)
    u, _ = direction(model, [validation], T, worst(0.3))
    scores = read(model, train, u)
    by_task = torch.stack([scores[train.tasks == i].mean() for i in range(T)])
    tiny = SgdStep(lr=1e-9)
    assert relative(by_task, unrolled(model, train, validation, p, tiny, worst(0.3)) / tiny.lr) < 1e-6


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_in_run_survives_gradient_checkpointing_and_leaves_gradients_alone(lora, use_reentrant):
    plain = tiny_model("llama", lora=lora, dtype=torch.float64)
    model = copy.deepcopy(plain)
    if lora:
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.train()
    batch = make_batch(8)
    u, _ = direction(plain, [make_batch(9)], T, worst(1.0))
    expected = read(plain, batch, u)
    assert relative(read(model, batch, u), expected) < 1e-10
    for ours, theirs in zip(trainable(model).values(), trainable(plain).values(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_the_direction_is_measured_without_dropout_while_activations_are_recomputed(architecture, lora, several):
    """OPT's layers drop out by themselves, Llama's attention does, LoRA's modules do."""
    make = other_model if architecture == "opt" else tiny_model
    model = make(architecture, lora=lora)
    batches = [make_batch(1), make_batch(2)] if several else [make_batch(1)]
    expected, v = direction(model, batches, T, worst(0.3))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
        for key in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.3)
    if lora:
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    layers = []
    for module in model.modules():
        if type(module).__name__ in ("OPTAttention", "LlamaAttention"):
            module.register_forward_pre_hook(lambda module, args: layers.append(module))
    u, losses = direction(model, batches, T, worst(0.3))
    torch.testing.assert_close(losses, v)
    assert relative(reference.flat(u.values()), reference.flat(expected.values())) < 1e-4
    assert len(layers) == (12 if several else 4)  # twice each, but once where only losses are wanted
    assert all(module.training for module in model.modules())
    noisy = [float(example_losses(model, batches[0]).mean().detach()) for _ in range(2)]
    assert noisy[0] != noisy[1]


def test_in_run_counts_an_eos_that_is_also_the_padding_token():
    """The look-up of the padding row has no gradient, the tied output head's use of the same row has one."""
    model = tiny_model("qwen3", dtype=torch.float64)
    ids = np.array([5, 0, 9, 0, 7, 0])
    labels = np.array([-100, -100, -100, 0, 7, 0])
    batch = collate([(ids, labels), (ids[::-1].copy(), labels)], [0, 1], pad_id=0)
    u, _ = direction(model, [batch], 2, worst(1.0, 2))
    flat_u = reference.flat(u.values())
    slow = torch.stack(
        [reference.gradient(model, reference.one_example_loss(model, batch, k)) @ flat_u for k in range(2)]
    )
    assert relative(read(model, batch, u), slow) < 1e-10


def test_in_run_adds_up_over_accumulation():
    model = tiny_model("llama", dtype=torch.float64)
    u, _ = direction(model, [make_batch(1)], T, worst(1.0))
    whole = make_batch(11, per_task=4)
    examples = [
        (whole.input_ids[k][: int(whole.attention_mask[k].sum())].numpy(), labels_of(whole, k))
        for k in range(len(whole))
    ]
    expected = read(model, whole, u, scale=1 / len(whole))
    parts = [collate(examples[i : i + 3], whole.tasks[i : i + 3].tolist(), 0) for i in range(0, len(examples), 3)]
    got = torch.cat([read(model, part, u, scale=1 / len(whole)) for part in parts])
    assert relative(got, expected) < 1e-10


def labels_of(batch, k):
    n, width = int(batch.attention_mask[k].sum()), batch.input_ids.shape[1]
    labels = np.full(n, -100)
    mine = batch.examples == k
    labels[(batch.positions[mine] - k * width + 1).numpy()] = batch.targets[mine].numpy()
    return labels


def test_in_run_refuses_a_parameter_it_cannot_read():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale**2

    with pytest.raises(ApportionError, match=r"1.*Odd.*forward"):
        InRunRead(nn.Sequential(nn.Linear(3, 3), Odd()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_direction_is_the_same_from_one_batch_and_from_several(architecture):
    model = tiny_model(architecture, dtype=torch.float64)
    whole = make_batch(12, per_task=3)
    examples = [
        (whole.input_ids[k][: int(whole.attention_mask[k].sum())].numpy(), labels_of(whole, k))
        for k in range(len(whole))
    ]
    parts = [collate(examples[i : i + 2], whole.tasks[i : i + 2].tolist(), 0) for i in range(0, len(examples), 2)]
    one, v = direction(model, [whole], T, worst(0.3))
    several, w = direction(model, parts, T, worst(0.3))
    torch.testing.assert_close(v, w)
    assert relative(reference.flat(several.values()), reference.flat(one.values())) < 1e-10
    assert relative(v, torch.stack([reference.token_mean(model, whole, j) for j in range(T)])) < 1e-10
    torch.testing.assert_close(task_losses(model, parts, T, "cpu"), v)


@pytest.mark.parametrize("seed", range(5))
def test_objective_lies_between_mean_and_worst_and_reaches_both(seed):
    v = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    for tau in (0.01, 0.1, 1.0, 10.0):
        assert v.mean() - 1e-9 <= smooth_worst(v, tau) <= v.max() + 1e-9
    torch.testing.assert_close(smooth_worst(v, 1e-4), v.max(), atol=1e-2, rtol=0)
    torch.testing.assert_close(smooth_worst(v, 1e5), v.mean(), atol=1e-3, rtol=0)


def test_adam_step_is_torchs_own():
    model = nn.Linear(4, 3).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, eps=1e-6)
    for _ in range(3):
        model(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    names = {p: n for n, p in model.named_parameters()}
    inner = of_optimizer(optimizer, names, 0.1)
    assert isinstance(inner, AdamStep)
    model(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
    expected = {n: p.detach() - 0.1 * inner.update(n, p.grad) for n, p in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])


@pytest.mark.parametrize("optim", ["adafactor", "lion_32bit", "rmsprop", "adamw_bnb_8bit"])
def test_an_optimizer_whose_step_is_not_known_is_refused_by_name(optim):
    with pytest.raises(ApportionError, match=f"'{optim}'.*adamw_torch, adamw_torch_fused, sgd|sgd.*'{optim}'"):
        check_followed(optim)


@pytest.mark.parametrize("optim", FOLLOWED)
def test_the_optimizers_followed_are_those_whose_state_is_read(optim):
    args = TrainingArguments(output_dir="nowhere", optim=optim, use_cpu=True)
    model = nn.Linear(4, 3)
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    optimizer = kind(model.parameters(), **settings)
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    inner = of_optimizer(optimizer, {p: n for n, p in model.named_parameters()}, 0.1)
    assert isinstance(inner, SgdStep) if optim == "sgd" else set(inner.moments) == {"weight", "bias"}


def test_adam_derivative_is_autograds():
    g = torch.tensor([0.3, -1.2, 1e-4, 0.0], dtype=torch.float64)
    moments = {"w": (torch.tensor([0.1, 0.2, 0.0, 0.0]).double(), torch.tensor([0.5, 0.1, 1e-3, 0.0]).double())}
    inner = AdamStep(lr=1.0, step=4, moments=moments)
    automatic = torch.func.grad(lambda x: inner.update("w", x).sum())(g)
    torch.testing.assert_close(inner.derivative("w", g), automatic)


def test_preconditioner_ignores_what_never_had_a_gradient():
    moments = {"w": (torch.zeros(2), torch.tensor([0.04, 0.0]))}
    scale = AdamStep(lr=1.0, betas=(0.9, 0.0), step=1, moments=moments).preconditioner("w", torch.zeros(2))
    torch.testing.assert_close(scale, torch.tensor([5.0, 0.0]))
