"""What every weighting in the registry must do; a new one joins by being registered."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from apportion import weights
from apportion._errors import ApportionError
from apportion.signals import Seen
from apportion.weights import WEIGHTS, Anchored

SETTINGS = {"doremi": {"reference": "runs/reference"}}


def build(name):
    return WEIGHTS.build({"type": name, **SETTINGS.get(name, {})})


every = pytest.mark.parametrize("name", list(WEIGHTS))


def measured(method, count, seed=0):
    """Weights of ``count`` examples from what the method is told; None for one that is told nothing."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, 5, 12, generator=generator)
    own = torch.ones(count, 5, dtype=torch.bool)
    ids = np.random.default_rng(seed).integers(0, 20, (count + 3, 9))
    (signal,) = method.needs() or (None,)
    if signal is None:
        return None
    if signal.reads == "states":
        phi = method.embed(states, own)
        return method.weigh(Seen(embeddings=phi, anchor=phi[:2].mean(0)))
    if signal.reads == "texts":
        again = np.random.default_rng(seed).integers(0, count, count)  # some texts twice, others never
        return method.weigh(Seen(texts=list(ids[again]), anchor_texts=list(ids[count:])))
    if signal.reads == "reference":
        shares = torch.rand(4, generator=generator, dtype=torch.float64)
        return method.weigh(Seen(tasks=torch.arange(count) % 4, shares=shares / shares.sum()))
    return method.weigh(Seen(losses=torch.rand(count, generator=generator) * 4))


@every
def test_weights_are_finite_nonnegative_and_one_an_example(name):
    method = build(name)
    w = measured(method, 11)
    if w is None:
        assert type(method) is weights.Uniform
        return
    assert w.shape == (11,) and w.dtype == torch.float32 and not w.requires_grad
    assert bool(torch.isfinite(w).all()) and bool((w >= 0).all())
    assert float(w.std()) > 0
    assert torch.equal(w, measured(build(name), 11))
    assert not torch.equal(w, measured(method, 11, seed=1))


@every
def test_unknown_setting_names_its_path_and_the_nearest(name):
    method = WEIGHTS.get(name)
    key = next(iter(method.model_fields), None)
    near = f"{key}s"
    said = rf"'weights\.{near}'" + (rf" \(did you mean '{key}'\?\)" if key and len(key) > 2 else "")
    with pytest.raises(ApportionError, match=said):
        WEIGHTS.build({"type": name, near: 3})


@every
def test_is_an_attribute_of_the_family_under_its_class_name(name):
    cls = WEIGHTS.get(name)
    assert getattr(weights, cls.__name__) is cls
    assert cls.__name__ in weights.__all__
    assert cls.__name__.lower() == name
    assert "What it optimises:" in cls.__doc__ and "Cost" in cls.__doc__


def test_only_anchored_ones_have_a_tau_and_a_mean_form():
    for name in WEIGHTS:
        method = build(name)
        assert isinstance(method, Anchored) == hasattr(method, "tau") == hasattr(method, "normalise")


def test_unknown_weights_name_the_nearest():
    with pytest.raises(ApportionError, match=r"Unknown weights 'bm52' \(did you mean 'bm25'\?\)"):
        WEIGHTS.build("bm52")
    with pytest.raises(AttributeError, match="Adpat"):
        _ = weights.Adpat


def test_naming_the_family_does_not_load_torch():
    code = "import sys, apportion.weights as w; list(w.WEIGHTS); w.__all__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@every
def test_advice_names_keys_of_the_method_only_and_is_there_where_something_is_measured(name):
    method = WEIGHTS.get(name)
    assert set(method.advice) == (set() if method.plain else {"alike"})
    for said in method.advice.values():
        named = re.findall(r"weights\.(\w+)", said)
        assert named and set(named) <= set(method.model_fields)
