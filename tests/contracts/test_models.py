"""What every kind of model in the registry must do; a new one joins by being registered and by a recipe here."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apportion import models
from apportion._errors import ApportionError
from apportion.models import KINDS
from apportion.models._kind import READINGS
from apportion.plans.build import load_data, make_model, report_batches
from apportion.plans.recipe import parse_recipe
from apportion.signals.losses import example_losses, example_nll
from tests.training.hypernets import SCRATCH
from tests.training.runs import TINY

RECIPES = {"causal": TINY, "tagi": SCRATCH}
every = pytest.mark.parametrize("name", list(KINDS))


def made(name, meta=False):
    recipe = parse_recipe(RECIPES[name])
    return make_model(recipe, load_data(recipe), meta=meta)


def batch_of(name):
    recipe = parse_recipe(RECIPES[name])
    return max(report_batches(recipe, load_data(recipe), recipe.arguments(Path("out"))), key=len)


@every
def test_it_is_an_attribute_of_the_family_under_its_class_name(name):
    cls = KINDS.get(name)
    assert getattr(models, cls.__name__) is cls and cls.__name__ in models.__all__ and cls.__name__.lower() == name
    assert cls.gives <= READINGS and "losses" in cls.gives


@every
def test_shapes_alone_are_the_model_and_cost_the_same(name):
    kind, shapes, model = parse_recipe(RECIPES[name]).model_kind(), made(name, meta=True), made(name)
    assert {n: p.shape for n, p in shapes.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert {p.device.type for p in shapes.parameters()} == {"meta"}
    assert [p.requires_grad for p in shapes.parameters()] == [p.requires_grad for p in model.parameters()]
    work, mine, theirs = batch_of(name).work, kind.prices(shapes), kind.prices(model)
    assert 0 < mine.forward(work) < mine.train(work)
    assert (mine.forward(work), mine.train(work), mine.ahead()) == (
        theirs.forward(work),
        theirs.train(work),
        theirs.ahead(),
    )


@every
def test_it_reads_a_batch_and_learns_from_it(name):
    model, batch = made(name), batch_of(name)
    vocabulary = model.config.get_text_config().vocab_size
    output = models.read(model.eval(), batch)
    assert output.logits.shape == (batch.supervised, vocabulary) and output.penalty is None
    trained = models.read(model.train(), batch).penalty
    assert trained is None or trained.shape == (len(batch),)
    before = float(example_losses(model.eval(), batch).mean())
    example_losses(model, batch).mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad)
    assert float(example_losses(model, batch).mean()) < before


@every
def test_the_seed_alone_decides_what_is_new(name):
    one, again = made(name).state_dict(), made(name).state_dict()
    assert all(torch.equal(one[key], again[key]) for key in one)


@every
def test_what_is_saved_is_loaded_again(name):
    model, batch = made(name).eval(), batch_of(name)
    other = made(name).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(example_nll(other, batch)[0], example_nll(model, batch)[0])


def test_unknown_kinds_and_settings_name_the_nearest():
    with pytest.raises(ApportionError, match=r"Unknown kind 'tgai' \(did you mean 'tagi'\?\)"):
        parse_recipe({**TINY, "kind": "tgai"})
    with pytest.raises(ApportionError, match=r"Unknown key 'kind.haed' \(did you mean 'head'\?\)"):
        parse_recipe({**SCRATCH, "kind": {"type": "tagi", "haed": "none"}})
    with pytest.raises(AttributeError, match="Tgai"):
        _ = models.Tgai


def test_naming_the_family_loads_no_torch():
    code = "import sys; from apportion.models import KINDS; KINDS.build('tagi'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
