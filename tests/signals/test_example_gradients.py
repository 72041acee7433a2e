"""Each example's own gradient from one backward pass, against autograd of that example alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from apportion._errors import ApportionError
from apportion.signals.example_gradients import ExampleGradients
from apportion.signals.losses import recomputing
from apportion.signals.pool_gradients import check_gradients
from apportion.tasks.batches import collate
from tests.references import selections as reference
from tests.selections.pools import examples
from tests.tiny import ARCHITECTURES, OTHERS, norms_in_double, other_model, tiny_model

EVERY_MODEL = [(a, lora) for a in ARCHITECTURES for lora in (False, True)]
EXACT = [(torch.float64, 1e-10), (torch.float32, 1e-4)]


@pytest.fixture(autouse=True)
def _double_where_double():
    with norms_in_double():
        yield


def check(model, tolerance, seed=0, count=5):
    given = examples(count, seed)
    batch = collate(given, [0] * count, 0)
    with recomputing(model):
        found = ExampleGradients(model).of(model, batch)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(found) == list(trained)
    assert all(p.grad is None for p in trained.values())
    model.eval()
    for k, (ids, labels) in enumerate(given):
        alone = reference.gradient(model, ids, labels)
        whole = max(float(g.norm()) for g in alone.values())
        for name, expected in alone.items():
            assert found[name].shape == (count, *trained[name].shape)
            error = float((found[name][k] - expected).norm())
            # Of a parameter that has next to no gradient, rounding is that of the others.
            assert error <= tolerance * max(float(expected.norm()), 1e-3 * whole), (name, k)


@pytest.mark.parametrize(("architecture", "lora"), EVERY_MODEL)
@pytest.mark.parametrize(("dtype", "tolerance"), EXACT)
def test_they_are_autograds_of_each_example_alone(architecture, lora, dtype, tolerance):
    check(tiny_model(architecture, lora=lora, dtype=dtype), tolerance)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", OTHERS)
def test_of_models_with_learned_positions(architecture, lora):
    check(other_model(architecture, lora).double(), 1e-6)  # GPT-Neo attends in fp32 whatever it is given


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tied_embeddings_have_the_gradients_of_both_uses(architecture, tied):
    model = tiny_model(architecture, dtype=torch.float64, tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    check(model, 1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activations_may_be_recomputed(architecture):
    model = tiny_model(architecture, dtype=torch.float64)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    check(model, 1e-10)


def test_frozen_parameters_are_left_out():
    model = tiny_model("llama", dtype=torch.float64)
    for name, p in model.named_parameters():
        p.requires_grad = "q_proj" in name
    check(model, 1e-10)


def test_a_parameter_that_is_not_used_has_no_gradient():
    model = tiny_model("llama", dtype=torch.float64)
    model.idle = nn.Linear(3, 2).double()
    check(model, 1e-10)


def test_an_unknown_module_is_refused():
    model = tiny_model("llama")
    model.model.layers[1].mlp.own = nn.Bilinear(2, 2, 2)
    with pytest.raises(
        ApportionError, match=r"'selection\.type: less' cannot read .*layers\.1\.mlp\.own' \(Bilinear\)"
    ):
        ExampleGradients(model)


def test_a_model_that_writes_over_its_outputs_and_an_unknown_optimizer_are_refused_beforehand():
    with torch.device("meta"):
        falcon, llama = other_model("falcon"), tiny_model("llama")
    check_gradients(llama, "adamw_torch")
    with pytest.raises(ApportionError, match=r"'falcon' writes over .* so 'selection\.type: less' cannot read them"):
        check_gradients(falcon, "adamw_torch")
    with pytest.raises(ApportionError, match=r"'selection\.type: less' looks one step .* not of 'adafactor'"):
        check_gradients(llama, "adafactor")
