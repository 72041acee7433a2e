"""Mean cosines of the model's own states, against the cosines of single pairs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from apportion import selections as family
from tests.references import selections as reference
from tests.references.adapt_weights import embedding, forward
from tests.selections.pools import bench, collection, pool_pairs, reordered, scores, target_pairs
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3").eval()


def test_scores_are_the_means_of_the_cosines_of_single_pairs(model):
    asked = bench(collection(), model)
    found = scores(family.Embedding(), asked, model)

    def phi(ids):
        with torch.no_grad():
            return embedding(forward(model, ids.tolist())[1], range(len(ids)))

    anchors = [[phi(ids) for ids, _ in pairs] for pairs in target_pairs(asked)]
    expected = [[reference.mean_cosine(phi(ids), of) for of in anchors] for ids, _ in pool_pairs(asked)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_what_it_costs_is_what_it_says_beforehand(model):
    asked = bench(collection(), model)
    method = family.Embedding()
    (signal,) = method.needs()
    price = signal.attach(asked).price()
    scores(method, asked, model)
    spent = asked.ledger.spent("select")
    assert (spent.supervised, spent.processed) == (price.supervised, price.processed)
    assert spent.flops == pytest.approx(price.flops)


def test_a_targets_own_examples_are_likest_it(model):
    """Of a pool that holds what one target is steered by, those score best for it but for its other examples."""
    tasks = collection(sizes=(5, 5, 5), validation=2)
    asked = bench(tasks, model)
    assert all(len(items) == 1 for items in asked.targets.steer)
    (signal,) = family.Embedding().needs()
    signal.attach(asked).resume(_look(model), signal.begin(_look(model)))
    own = family.Embedding().score(signal.show([items[0] for items in asked.targets.steer]))
    assert torch.allclose(own.diagonal(), torch.ones(3), atol=1e-5)
    assert F.one_hot(own.argmax(1), 3).diagonal().all()


def _look(model):
    from apportion.signals._pool import Look

    return Look(model)


def test_another_order_of_the_pool_is_another_order_of_the_scores(model):
    tasks = collection()
    again, places = reordered(tasks)
    before, after = (scores(family.Embedding(), bench(given, model), model) for given in (tasks, again))
    order = [tasks.names.index(name) for name in again.names]
    torch.testing.assert_close(after, before[places][:, order])
