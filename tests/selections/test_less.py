"""LESS against its definitions by autograd of each example alone, dense projections and Adam's step without corrections."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from apportion import selections as family
from apportion.signals._pool import Look
from apportion.signals.inner_step import inner_step
from apportion.signals.losses import example_losses
from apportion.tasks.batches import collate
from tests.references import selections as reference
from tests.selections.pools import bench, collection, examples, graded, pool_pairs, reordered, scores, target_pairs
from tests.tiny import tiny_model

# Next to no epsilon: the corrections of the bias, which the papers leave out, change no cosine but by it.
BETAS, EPS = (0.9, 0.999), 1e-14
RATES = (3e-3, 1e-3)


def warmed_up(architecture="llama", lora=True):
    """Looks at two checkpoints of a short run by Adam, and the same as the reference takes them."""
    model = tiny_model(architecture, lora=lora, layers=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, betas=BETAS, eps=EPS)
    looks, checkpoints = [], []
    for number, rate in enumerate(RATES):
        for step in range(3):
            batch = collate(examples(6, 50 + 10 * number + step), [0] * 6, 0)
            optimizer.zero_grad()
            example_losses(model, batch).mean().backward()
            optimizer.step()
        optimizer.zero_grad()
        still = copy.deepcopy(model).eval()
        inner = copy.deepcopy(inner_step(model, optimizer, rate))
        looks.append(Look(still, inner, rate / sum(RATES)))
        moments = {name: tuple(m.clone() for m in inner.moments[name]) for name in inner.moments}
        checkpoints.append((still, moments, rate))
    return looks, checkpoints


def spearman(a, b):
    first, second = (np.argsort(np.argsort(np.asarray(x))) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


@pytest.fixture(scope="module")
def warm():
    return warmed_up()


@pytest.fixture(scope="module")
def asked(warm):
    return bench(collection(), warm[0][0].model)


@pytest.mark.parametrize("width", [64, 256])
def test_scores_are_the_papers(warm, asked, width):
    looks, checkpoints = warm
    method = family.Less(projection=width, epochs=2, seed=3)
    found = scores(method, asked, looks)
    dense = reference.dense_projection(asked.trained, width, 3)
    largest, influence = reference.less(checkpoints, pool_pairs(asked), target_pairs(asked), dense, BETAS, EPS)
    torch.testing.assert_close(found, torch.tensor(influence), rtol=1e-3, atol=1e-4)
    scored, ranked = method.gathered(found, asked.targets.importance)
    assert scored.tolist() == pytest.approx(largest, abs=1e-4) and torch.equal(scored, ranked)
    assert found.std(0).min() > 0.01


@pytest.mark.parametrize(("architecture", "lora"), [("llama", True), ("gemma3_text", False)])
def test_a_wide_projection_ranks_as_none_does(architecture, lora):
    looks, checkpoints = warmed_up(architecture, lora)
    asked = bench(graded(), looks[0].model)
    found = scores(family.Less(projection=8192, epochs=2), asked, looks)
    _, exact = reference.less(checkpoints, pool_pairs(asked), target_pairs(asked), None, BETAS, EPS)
    for target in range(2):
        assert spearman(found[:, target], [row[target] for row in exact]) >= 0.95


def test_what_is_held_at_once_changes_nothing(warm, asked, monkeypatch):
    from apportion.signals import pool_gradients

    method = family.Less(projection=64, epochs=2)
    whole = scores(method, asked, warm[0])
    monkeypatch.setattr(pool_gradients, "HELD", 3 * asked.trained)
    torch.testing.assert_close(scores(method, asked, warm[0]), whole, rtol=1e-4, atol=1e-5)


def test_an_end_of_the_warm_up_counts_by_its_learning_rate(warm, asked):
    method = family.Less(projection=64, epochs=1)
    alone = [scores(method, asked, [Look(look.model, look.inner, 1.0)]) for look in warm[0]]
    together = scores(family.Less(projection=64, epochs=2), asked, warm[0])
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    torch.testing.assert_close(together, 0.75 * alone[0] + 0.25 * alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("projection", [64, None])
def test_what_it_costs_is_what_it_says_beforehand(warm, projection):
    asked = bench(collection(), warm[0][0].model)
    method = family.Less(projection=projection, epochs=2)
    (signal,) = method.needs()
    price = signal.attach(asked).price()
    scores(method, asked, warm[0])
    spent = asked.ledger.spent("select")
    assert (spent.supervised, spent.processed) == (price.supervised, price.processed)
    assert spent.flops == pytest.approx(price.flops)
    once = asked.pool.cost(asked.gradient).flops
    assert spent.flops > 2 * once


@pytest.mark.parametrize("projection", [64, None])
def test_another_order_of_the_pool_is_another_order_of_the_scores(warm, projection):
    tasks = collection()
    again, places = reordered(tasks)
    method = family.Less(projection=projection, epochs=2)
    before, after = (scores(method, bench(given, warm[0][0].model), warm[0]) for given in (tasks, again))
    order = [tasks.names.index(name) for name in again.names]
    torch.testing.assert_close(after, before[places][:, order], rtol=1e-3, atol=1e-5)


class TestProducts:
    @pytest.mark.parametrize(("architecture", "lora"), [("llama", False), ("qwen3", True), ("gemma3_text", False)])
    def test_they_are_those_of_autograd(self, architecture, lora):
        looks, checkpoints = warmed_up(architecture, lora)
        asked = bench(collection(), looks[0].model)
        found = scores(family.Less(projection=None, epochs=2), asked, looks)
        expected = torch.zeros(len(found), 3)
        for look, (model, moments, _) in zip(looks, checkpoints, strict=True):
            parts = [_flat(reference.gradient(model, *pair)) for pair in pool_pairs(asked)]
            scale = torch.cat([_preconditioner(*moments[name], look.inner).flatten() for name in moments])
            for target, pairs in enumerate(target_pairs(asked)):
                mean = sum(_flat(reference.gradient(model, *pair)) for pair in pairs) / len(pairs)
                expected[:, target] += look.weight * torch.stack([part @ (scale * mean) for part in parts])
        assert float((found - expected).norm() / expected.norm()) < 1e-4
        for target in range(3):
            assert spearman(found[:, target], expected[:, target]) >= 0.999

    def test_without_a_warm_up_they_are_plain_products(self):
        model = tiny_model("llama", layers=1).eval()
        asked = bench(collection(), model)
        found = scores(family.Less(projection=None, epochs=1), asked, model)
        mean = sum(_flat(reference.gradient(model, *pair)) for pair in target_pairs(asked)[1]) / 3
        expected = [float(_flat(reference.gradient(model, *pair)) @ mean) for pair in pool_pairs(asked)]
        assert found[:, 1].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def _flat(gradient):
    return torch.cat([g.flatten() for g in gradient.values()])


def _preconditioner(_, square, inner):
    """1 / (sqrt(v_hat) + eps), 0 where no gradient was ever seen."""
    corrected = square / (1 - BETAS[1] ** inner.step)
    return torch.where(square > 0, 1 / (corrected.sqrt() + EPS), torch.zeros_like(square))


def test_the_warm_up_is_a_random_part_of_the_pool_with_a_checkpoint_after_each_epoch():
    from apportion.plans.recipe import parse_recipe
    from tests.training.runs import TINY

    recipe = parse_recipe({**TINY, "selection": {"type": "less", "warmup": 0.1, "epochs": 3}, "mixture": "adapt"})
    child = parse_recipe(recipe.chosen().warm_up(recipe.resolved()))
    assert child.chosen().limit == "10%" and child.selection["type"] == "random"
    assert child.budget == "30%" and child.validation.every == pytest.approx(1 / 3) and child.checkpoints == "all"
    assert child.validation.half == "steer" and child.mixture["type"] == "proportional"
    assert child.lora is None  # a model from scratch is warmed up whole
    named = family.Less().warm_up({**recipe.resolved(), "model": {"name": "x"}})
    assert named["lora"] == {"r": 16}
    assert family.Less(lora={"r": 4}).warm_up(recipe.resolved())["lora"]["r"] == 4
