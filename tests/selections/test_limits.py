"""How much is kept, in what order targets take, and what no selection accepts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import selections as family
from apportion._errors import ApportionError
from apportion.selections import SELECTIONS
from apportion.selections._selection import in_turns, read_limit, within
from tests.references import selections as reference

amounts = st.lists(st.integers(1, 30), min_size=1, max_size=30)
tables = st.integers(1, 4).flatmap(
    lambda targets: st.lists(st.lists(st.integers(0, 3), min_size=targets, max_size=targets), min_size=1, max_size=25)
)


@given(amounts=amounts, limit=st.integers(1, 400), seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_the_best_are_kept_up_to_the_limit_and_never_above(amounts, limit, seed):
    sizes = np.array(amounts)
    order = np.random.default_rng(seed).permutation(len(sizes))
    kept = within(order, sizes, limit)
    count = int(kept.sum())
    assert set(np.flatnonzero(kept)) == set(order[:count])
    assert sizes[kept].sum() <= limit
    assert count == len(sizes) or sizes[kept].sum() + sizes[order[count]] > limit


@given(amounts=amounts, limits=st.tuples(st.integers(1, 400), st.integers(0, 400)), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_larger_limit_only_adds(amounts, limits, seed):
    order = np.random.default_rng(seed).permutation(len(amounts))
    small, large = (within(order, np.array(amounts), limit) for limit in (limits[0], sum(limits)))
    assert not (small & ~large).any()


@given(scores=tables)
@settings(max_examples=200, deadline=None)
def test_targets_take_turns(scores):
    places = in_turns(torch.tensor(scores, dtype=torch.float32))
    assert places.argsort().tolist() == reference.turns(scores)


def test_over_targets_the_mean_by_importance_the_highest_or_turns():
    scores = torch.tensor([[0.9, 0.0], [0.5, 0.6], [0.4, 0.8]])
    importance = torch.tensor([3.0, 1.0], dtype=torch.float64)
    mean, by_mean = family.Bm25().gathered(scores, importance)
    assert mean.tolist() == pytest.approx([0.675, 0.525, 0.5]) and torch.equal(mean, by_mean)
    highest, by_highest = family.Bm25(aggregate="max").gathered(scores, importance)
    assert highest.tolist() == pytest.approx([0.9, 0.6, 0.8]) and torch.equal(highest, by_highest)
    _, by_turn = family.Bm25(aggregate="turns").gathered(scores, importance)
    assert by_turn.argsort(descending=True).tolist() == [0, 2, 1]
    assert family.Less().aggregate == "max"


@pytest.mark.parametrize(
    ("limit", "read"),
    [
        ("20%", ("supervised", 200)),
        ("0.15%", ("supervised", 1)),  # rounded down
        (300, ("supervised", 300)),
        ("2k", ("supervised", 2000)),
        ("2M processed", ("processed", 2_000_000)),
        ({"processed": "5k"}, ("processed", 5000)),
        ({"examples": 12}, ("examples", 12)),
        ({"examples": "10%"}, ("examples", 5)),
        ({"examples": "1k"}, ("examples", 1000)),
    ],
)
def test_a_limit_is_of_tokens_or_examples_and_a_share_or_a_number(limit, read):
    assert read_limit(family.Random(limit=limit).limit, 1000, 50) == read


@pytest.mark.parametrize("name", [name for name in SELECTIONS if name not in ("all", "file")])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limit": "1e15 FLOPs"}, "'selection.limit' is in tokens or examples: FLOPs are the budget's"),
        (
            {"limit": {"total": "1e15 FLOPs"}},
            "Unknown key 'selection.limit.total' (known: examples, supervised, processed)",
        ),
        ({"limit": 0}, "'selection.limit' is 0: write a share of the pool's supervised tokens"),
        ({"limit": {"examples": 0}}, "'selection.limit.examples' is '0'"),
        ({"limit": {"examples": "10 supervised"}}, "examples have no unit"),
        ({"limit": {"examples": "1e9 FLOPs"}}, "'selection.limit.examples' is '1e9 FLOPs'"),
        ({"limit": {"examples": 10, "supervised": 10}}, "one of examples, supervised and processed, not several"),
        ({"limit": {"exmples": 10}}, "Unknown key 'selection.limit.exmples' (did you mean 'examples'?)"),
        ({"limit": "many"}, "'selection.limit' is 'many': write a share"),
        ({"pool": 0}, "'selection.pool' is 0"),
        ({"pool": 1.1}, "'selection.pool' is 1.1"),
        ({"limt": "10%"}, "Unknown key 'selection.limt' (did you mean 'limit'?)"),
    ],
)
def test_what_is_refused(name, settings, said):
    with pytest.raises(ApportionError) as raised:
        SELECTIONS.build({"type": name, **settings})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "less", "projection": 10}, "'selection.projection' is 10"),
        ({"type": "less", "projection": 0}, "'selection.projection' is 0"),
        ({"type": "less", "warmup": 0}, "'selection.warmup' is 0"),
        ({"type": "less", "warmup": 1.5}, "'selection.warmup' is 1.5"),
        ({"type": "less", "epochs": 0}, "'selection.epochs' is 0"),
        ({"type": "less", "lora": {"rank": 3}}, "Unknown key 'selection.lora.rank'"),
        ({"type": "bm25", "aggregate": "min"}, "'selection.aggregate' is 'min'"),
        ({"type": "perplexity", "keep": "middle"}, "'selection.keep' is 'middle'"),
        ({"type": "perplexity", "aggregate": "max"}, "Unknown key 'selection.aggregate'"),
        ({"type": "random", "stratifed": True}, "(did you mean 'stratified'?)"),
        ({"type": "file"}, "'selection.path' is missing"),
        ({"type": "file", "path": "x", "limit": "5%"}, "Unknown key 'selection.limit'"),
        ({"type": "all", "limit": "5%"}, "'selection.limit'"),
        ("lses", "Unknown selection 'lses' (did you mean 'less'?)"),
    ],
)
def test_what_one_of_them_refuses(block, said):
    with pytest.raises(ApportionError) as raised:
        SELECTIONS.build(block)
    assert said in str(raised.value)
