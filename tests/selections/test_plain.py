"""Selections that targets have no say in: all, random, perplexity, and what a file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import selections as family
from apportion.selections import SELECTIONS
from apportion.selections.perplexity import standing
from apportion.selections.random import shuffled
from tests.references import selections as reference
from tests.selections.pools import bench, collection, pool_pairs, scores
from tests.tiny import tiny_model

sizes_of_tasks = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(sum)


def test_all_keeps_all_and_asks_for_nothing():
    kept = SELECTIONS.build("all")
    assert kept.keeps_all and kept.needs() == () and kept.given() is None and kept.warm_up({}) is None
    assert not any(SELECTIONS.get(name).keeps_all for name in SELECTIONS if name != "all")


class TestRandom:
    @given(sizes=sizes_of_tasks, seed=st.integers(0, 1000), stratified=st.booleans())
    @settings(max_examples=50, deadline=None)
    def test_it_follows_from_the_seed_alone(self, sizes, seed, stratified):
        method = family.Random(stratified=stratified)
        first = method.blind(sizes, seed)
        assert first.shape == (sum(sizes), 1) and bool(((first > 0) & (first < 1)).all())
        assert torch.equal(first, method.blind(sizes, seed))

    def test_another_seed_is_another_order(self):
        for stratified in (False, True):
            first, second = (shuffled([200, 100], seed, stratified) for seed in (0, 1))
            assert abs(np.corrcoef(first[:200], second[:200])[0, 1]) < 0.25
            assert len(np.unique(first[:200])) == 200

    def test_no_place_is_preferred(self):
        kept = np.mean([shuffled([30, 10], seed, False) > 0.75 for seed in range(400)], axis=0)
        assert kept.min() > 0.15 and kept.max() < 0.35

    @given(sizes=sizes_of_tasks, seed=st.integers(0, 50), share=st.floats(0, 1))
    @settings(max_examples=300, deadline=None)
    def test_stratified_each_task_keeps_its_share_to_within_one(self, sizes, seed, share):
        drawn = shuffled(sizes, seed, True)
        count = round(share * sum(sizes))
        chosen = np.zeros(len(drawn), bool)
        chosen[np.argsort(-drawn, kind="stable")[:count]] = True
        for size, part in zip(sizes, np.split(chosen, np.cumsum(sizes)[:-1]), strict=True):
            assert abs(part.sum() - size * count / sum(sizes)) < 1

    def test_one_draw_over_all_does_not(self):
        drawn = shuffled([40, 40], 0, False)
        off = [abs(int((np.argsort(-drawn)[:count] < 40).sum()) - count / 2) for count in range(80)]
        assert max(off) > 1


class TestPerplexity:
    @pytest.fixture(scope="class")
    def found(self):
        model = tiny_model("llama").eval()
        asked = bench(collection(), model)
        return asked, scores(family.Perplexity(), asked, model), model

    def test_scores_are_the_mean_losses(self, found):
        asked, losses, model = found
        with torch.no_grad():
            expected = [float(reference.loss(model, ids, labels)) for ids, labels in pool_pairs(asked)]
        assert losses.shape == (18, 1)
        assert losses[:, 0].tolist() == pytest.approx(expected, rel=1e-5)

    def test_a_pass_over_the_pool_is_charged_and_nothing_else(self, found):
        asked, _, _ = found
        spent, pool = asked.ledger.spent("select"), asked.pool
        assert spent.processed == sum(int(task.train.processed.sum()) for task in pool.tasks.tasks)
        assert spent.flops == pytest.approx(pool.cost(asked.prices.forward).flops) == asked.ledger.total_flops

    @pytest.mark.parametrize(
        ("keep", "order"), [("low", [2, 4, 0, 3, 1]), ("high", [1, 3, 0, 4, 2]), ("mid", [0, 4, 2, 3, 1])]
    )
    def test_low_high_and_mid(self, keep, order):
        losses = torch.tensor([3.0, 9.0, 1.0, 5.0, 2.0])  # median 3
        scored, ranked = family.Perplexity(keep=keep).gathered(losses[:, None], torch.ones(1))
        assert torch.equal(scored, losses)
        assert ranked.argsort(descending=True, stable=True).tolist() == order
        assert torch.equal(ranked, standing(losses.double(), keep))


class TestFile:
    def test_it_is_given_and_charged_unless_told_not_to(self, monkeypatch):
        monkeypatch.setenv("SOMEWHERE", "/there")
        assert family.File(path="${SOMEWHERE}/kept.parquet").given() == Path("/there/kept.parquet")
        assert family.File(path="x").charges and not family.File(path="x", charge=False).charges
        assert family.File(path="x").needs() == ()
