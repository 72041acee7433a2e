"""Mean BM25 over each target's examples, by counting by hand and by asking bm25s query by query."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apportion import selections as family
from apportion.selections.bm25 import K1, B, mean_bm25
from apportion.signals._pool import Lexicon, Shown
from tests.references import selections as reference
from tests.selections.pools import bench, collection, pool_pairs, reordered, scores, target_pairs
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def asked():
    return bench(collection(), tiny_model("llama"))


def test_scores_are_the_means_over_each_targets_examples(asked):
    found = scores(family.Bm25(), asked, None)
    documents = [ids.tolist() for ids, _ in pool_pairs(asked)]
    for target, pairs in enumerate(target_pairs(asked)):
        expected = reference.bm25(documents, [ids.tolist() for ids, _ in pairs], K1, B)
        assert found[:, target].tolist() == pytest.approx(expected, rel=1e-5)
    assert found.std(0).min() > 0 and not torch.equal(found[:, 0], found[:, 1])


def test_it_agrees_with_bm25s_asked_query_by_query(asked):
    import bm25s

    documents = [ids.tolist() for ids, _ in pool_pairs(asked)]
    other = bm25s.BM25(k1=K1, b=B, method="lucene")
    other.index((documents, {term: term for term in range(61)}), show_progress=False)
    found = scores(family.Bm25(), asked, None)
    for target, pairs in enumerate(target_pairs(asked)):
        expected = np.mean([other.get_scores_from_ids(ids.tolist()) for ids, _ in pairs], axis=0)
        np.testing.assert_allclose(found[:, target], expected, rtol=1e-4)


def test_a_text_that_shares_nothing_has_no_score():
    lexicon = Lexicon(2, 7, np.array([0, 1, 1]), np.array([[0.0, 1.0, 0.5]]))
    found = mean_bm25([np.array([1, 2, 2, 9]), np.array([7, 8, 9])], lexicon)
    assert found[0, 0] > 0 == found[1, 0]
    assert family.Bm25().score(Shown(texts=[], lexicon=lexicon)).shape == (0, 1)


def test_no_pass_of_a_model_is_charged(asked):
    scores(family.Bm25(), asked, None)
    assert asked.ledger.total_flops == 0 == asked.ledger.spent("select").processed


def test_another_order_of_the_pool_is_another_order_of_the_scores():
    tasks = collection()
    again, places = reordered(tasks)
    before, after = (scores(family.Bm25(), bench(given, tiny_model("llama")), None) for given in (tasks, again))
    order = [tasks.names.index(name) for name in again.names]
    assert order != sorted(order)
    torch.testing.assert_close(after, before[places][:, order])
