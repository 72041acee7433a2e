"""BM25 weights against counting by hand, and against asking bm25s query by query."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest

from apportion import weights as family
from apportion._errors import ApportionError
from apportion.signals import Seen
from apportion.weights.bm25 import K1, B, index, mean_scores
from tests.training.runs import history, ledger, run


def literal(document, query, pool):
    """Lucene's BM25 of one document for one query, repeated query terms counted each time."""
    mean_length = sum(map(len, pool)) / len(pool)
    score = 0.0
    for term in query:
        df = sum(term in other for other in pool)
        tf = document.count(term)
        idf = math.log(1 + (len(pool) - df + 0.5) / (df + 0.5))
        score += idf * tf / (tf + K1 * (1 - B + B * len(document) / mean_length))
    return score


def texts(count, seed, terms=30, longest=25):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, terms, generator.integers(1, longest)) for _ in range(count)]


def test_the_mean_over_anchors_is_one_product():
    pool, anchors = texts(40, 0), texts(7, 1, terms=40)  # some of the anchors' terms stand nowhere in the pool
    scores = mean_scores(index(pool, 30), anchors, 40, 30)
    plain = [document.tolist() for document in pool]
    expected = [sum(literal(document, query.tolist(), plain) for query in anchors) / 7 for document in plain]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)


def test_it_agrees_with_bm25s_asked_query_by_query():
    import bm25s

    pool, anchors = texts(60, 2), texts(9, 3)
    asked = bm25s.BM25(k1=K1, b=B, method="lucene")
    asked.index(([document.tolist() for document in pool], {term: term for term in range(30)}), show_progress=False)
    expected = np.mean([asked.get_scores_from_ids(query.tolist()) for query in anchors], axis=0)
    scores = mean_scores(index(pool, 30), anchors, 60, 30)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert np.argsort(-scores)[:10].tolist() == np.argsort(-expected)[:10].tolist()


def test_weights_are_the_sigmoid_of_scores_from_zero_to_one():
    pool, anchors = texts(50, 4), texts(5, 5)
    w = family.Bm25(tau=0.5).weigh(Seen(texts=pool, anchor_texts=anchors))
    scores = mean_scores(index(pool, 30), anchors, 50, 30)
    assert (float(w.min()), float(w.max())) == pytest.approx((0.5, 1 / (1 + math.exp(-2))))
    assert w.argsort().tolist() == scores.argsort(kind="stable").tolist()


def test_more_of_the_anchors_words_weigh_more():
    anchors = [np.array([1, 2, 3])]
    near, far = np.array([1, 2, 3, 9]), np.array([7, 8, 9, 9])
    w = family.Bm25().weigh(Seen(texts=[near, far, near[:2]], anchor_texts=anchors))
    assert w[0] > w[2] > w[1] == 0.5


def test_nothing_shared_and_a_tau_too_small_are_refused():
    pool = texts(20, 6)
    with pytest.raises(ApportionError, match="shares a token with an anchor"):
        family.Bm25().weigh(Seen(texts=pool, anchor_texts=[np.array([500, 501])]))
    with pytest.raises(ApportionError, match=r"'weights\.tau' is 1e-09"):
        family.Bm25(tau=1e-9).weigh(Seen(texts=[np.array([1, 2]), np.array([1, 3])], anchor_texts=[np.array([1, 2])]))


def test_without_bm25s_the_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "bm25s":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ApportionError, match=r"pip install 'apportion\[bm25\]'"):
        index(texts(3, 7), 30)


def test_a_run_takes_each_examples_own_weight_and_charges_no_pass(tmp_path):
    """The recorded means are those of the drawn examples' weights, worked out apart from the trainer."""
    from apportion.plans.anchors import find_anchors
    from apportion.plans.build import load_data, make_sampler
    from apportion.plans.recipe import overridden, parse_recipe
    from tests.training.runs import TINY

    done, free = run(tmp_path / "run", "weights=bm25"), run(tmp_path / "free")
    assert ledger(done)["accounts"] == ledger(free)["accounts"]
    recipe = parse_recipe(overridden(TINY, ["weights=bm25"]))
    data = load_data(recipe)
    method = recipe.weighting()
    texts = [[task.train.example(i)[0] for i in range(len(task.train))] for task in data.tasks.tasks]
    picked = find_anchors(method.needs(), data, 96).picked
    seen = Seen(texts=[ids for each in texts for ids in each], anchor_texts=[s.example(i)[0] for _, s, i in picked])
    pool = method.weigh(seen).split([len(each) for each in texts])
    sampler = make_sampler(recipe, data, recipe.method())
    for record in history(done)[1:6]:
        draws = sampler.draw(np.full(20, 1 / 20), 8)
        w = [float(pool[task][index]) for task, index in draws]
        assert record["weights"]["mean"] == pytest.approx(np.mean(w), abs=1e-6)
        assert record["weights"]["std"] == pytest.approx(np.std(w), abs=1e-6)
