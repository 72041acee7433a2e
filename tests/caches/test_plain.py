"""The methods without codes: each against sets and loops, with grouped heads, padding, and every kind of budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.caches import CACHES, Dense, Exact, KvShape, Quest, Random, Snapkv, Streaming
from tests.caches.driving import chosen, driven
from tests.references import decoding as literal

SHAPE = KvShape(2, 4, 2, 16, 4)


def agree(run, wanted):
    """The last step's output is attention over the wanted sets, and nothing else."""
    scaling = run.keys.shape[-1] ** -0.5
    for (row, head), kept in wanted.items():
        groups = run.group(row, head)
        found = run.outputs[-1][row, head * len(groups) : (head + 1) * len(groups)]
        exact = literal.attention(groups, run.keys[row, head], run.values[row, head], kept, scaling)
        assert torch.allclose(found.double(), exact, atol=1e-5)


def wanted(run, keep):
    return {(row, head): keep(row, head) for row in range(run.keys.shape[0]) for head in range(run.keys.shape[1])}


CASES = [{}, {"padding": (0, 9, 40)}, {"heads": 2}, {"heads": 8, "padding": (3,)}]


@pytest.mark.parametrize("case", CASES)
def test_dense_reads_all(case):
    run = driven(Dense(), 20, **case)
    agree(run, wanted(run, lambda row, _: set(run.positions(row))))


@pytest.mark.parametrize("budget", [5, 20, 60])
@pytest.mark.parametrize("case", CASES)
def test_streaming_keeps_the_first_and_the_newest(case, budget):
    run = driven(Streaming(), budget, **case)
    sets = wanted(run, lambda row, _: literal.streaming(run.positions(row), budget, 4))
    agree(run, sets)
    assert run.layer.nbytes == len(run.padding) * 2 * 2 * 16 * 8 * budget


@pytest.mark.parametrize("budget", [1, 16, 20, 47, 60])
@pytest.mark.parametrize("case", [*CASES, {"prompt": 63, "steps": 1}, {"prompt": 64, "steps": 17}])
def test_quest_reads_the_best_pages(case, budget):
    run = driven(Quest(dense_layers=0), budget, **case)

    def keep(row, head):
        return literal.quest(run.group(row, head), run.keys[row, head], run.positions(row), budget, 16)

    assert chosen(run, budget) == wanted(run, keep)
    agree(run, wanted(run, keep))


def test_quests_bounds_are_those_of_its_pages_however_tokens_came():
    run = driven(Quest(dense_layers=0, page=4), 8, prompt=21, steps=9)
    for name, bound in (("minima", torch.amin), ("maxima", torch.amax)):
        pages = torch.stack([bound(part, 2) for part in run.keys.split(4, dim=2)], 2)
        assert torch.equal(run.layer.side[name].view(), pages)


@pytest.mark.parametrize("budget", [1, 16, 60])
@pytest.mark.parametrize("case", CASES)
def test_exact_reads_the_most_attention(case, budget):
    run = driven(Exact(), budget, **case)

    def keep(row, head):
        return literal.exact(run.group(row, head), run.keys[row, head], run.positions(row), budget, 0.25)

    assert chosen(run, budget) == wanted(run, keep)
    agree(run, wanted(run, keep))


@pytest.mark.parametrize("budget", [12, 40])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("generated", ["window", "keep"])
def test_snapkv_keeps_what_the_prompts_end_looked_at(case, budget, generated):
    run = driven(Snapkv(window=8, generated=generated), budget, **case)
    asked, n = run.prompt_queries, run.prompt_queries.shape[2]

    def keep(row, head):
        groups = asked.shape[1] // run.keys.shape[1]
        queries = asked[row, head * groups : (head + 1) * groups, -8:].transpose(0, 1)
        prompt = [j for j in run.positions(row) if j < n]
        # With "window" the first new token is the newest of the window already.
        window, count = (8, budget) if generated == "keep" else (7, budget - 1)
        kept = literal.snapkv(queries, run.keys[row, head, :n], prompt, count, window, 7, 0.25)
        every = sorted(kept) + list(range(n, run.keys.shape[2]))
        return set(every) if generated == "keep" else literal.streaming(every, budget, budget - 8)

    agree(run, wanted(run, keep))
    held = budget + 5 if generated == "keep" else budget
    assert run.layer.nbytes == len(run.padding) * 2 * 2 * 16 * 8 * held


def test_snapkv_forgets_nothing_of_a_prompt_within_the_budget_and_holds_it_later():
    run = driven(Snapkv(window=4), 30, prompt=20, steps=25)
    agree(run, wanted(run, lambda row, _: literal.streaming(run.positions(row), 30, 26)))
    kept = driven(Snapkv(window=4, generated="keep"), 30, prompt=20, steps=25)
    agree(kept, wanted(kept, lambda row, _: set(kept.positions(row))))


def test_random_draws_anew_in_each_step_and_alike_for_the_same_request():
    first, again, other = (driven(Random(seed=seed), 10, steps=3) for seed in (1, 1, 2))
    assert chosen(first, 10) == chosen(again, 10) != chosen(other, 10)
    assert all(torch.equal(a, b) for a, b in zip(first.outputs, again.outputs, strict=True))
    held = first.layer.held(None)
    shorter = held._replace(keys=held.keys[:, :, :-1])
    layer = held._replace(layer=1)
    sets = [first.layer.method.select(given, first.queries[-1], 10).indices for given in (held, shorter, layer)]
    assert not torch.equal(sets[0], sets[1]) and not torch.equal(sets[0], sets[2])
    assert (sets[0][..., -1] == held.keys.shape[2] - 1).all()


def test_random_takes_all_tokens_alike():
    run = driven(Random(), 8, prompt=40, steps=1, padding=(8,))
    held, counts = run.layer.held(run.mask), torch.zeros(41)
    for seed in range(400):
        taken = Random(seed=seed).select(held, run.queries[-1], 8)
        counts += torch.bincount(taken.indices.flatten(), minlength=41)
    assert counts[:8].sum() == 0 and counts[40] == 800
    assert counts[8:40].min() > 100 and counts[8:40].max() < 260


METHODS = [*CACHES, "adamas-asym", "adamas-xor", "adamas-query"]


def method_of(name):
    name, _, way = name.partition("-")
    extra = {} if not way else {"group": "query"} if way == "query" else {"estimator": way}
    extra |= {"window": 2} if name == "snapkv" else {"sinks": 1} if name in ("streaming", "adamas") else {}
    return CACHES.get(name)(dense_layers=0, **extra)


# Flexicache reads of pages that lie on two sides: test_flexicache.py.
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("dense", "flexicache")])
@settings(max_examples=200, deadline=None)
@given(
    budget=st.integers(1, 40),
    prompt=st.integers(1, 60),
    padding=st.lists(st.integers(0, 59), min_size=1, max_size=3),
    heads=st.sampled_from([2, 4, 8]),
    steps=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_no_step_reads_more_than_the_budget(name, budget, prompt, padding, heads, steps, seed):
    method = method_of(name)
    if name in ("snapkv", "streaming"):
        budget += 3
    padding = tuple(min(start, prompt - 1) for start in padding)
    run = driven(method, budget, prompt=prompt, padding=padding, heads=heads, head=8, steps=steps, seed=seed)
    assert run.layer.watch.most <= budget
    assert all(torch.isfinite(out).all() for out in run.outputs)
    if run.layer.method.evicts:
        assert run.layer.keys.shape[2] <= budget
    elif run.keys.shape[2] > budget:
        for (row, _), kept in chosen(run, budget).items():
            assert len(kept) <= budget
            assert run.keys.shape[2] - 1 in kept and min(kept) >= padding[row]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Streaming(sinks=4).check(SHAPE, 4), "keeps 4 first tokens, and a budget of 4 leaves none"),
        (lambda: Snapkv().check(SHAPE, 32), "keeps a window of 32 tokens, and a budget of 32 leaves none"),
        (lambda: CACHES.build({"type": "snapkv", "pooling": 4}), "must be an odd number"),
        (lambda: CACHES.build({"type": "adamas", "thresholds": [1, 0, 2]}), "three numbers, each larger"),
        (lambda: CACHES.build({"type": "adamas", "estimator": "l2"}), "cache.estimator"),
        (
            lambda: CACHES.build({"type": "adamas", "estimator": "asym", "thresholds": "fixed"}),
            "no meaning for .* 'asym'",
        ),
        (lambda: CACHES.build({"type": "quest", "pages": 8}), "did you mean.*page"),
        (lambda: CACHES.build({"type": "qest"}), "did you mean 'quest'"),
        (lambda: CACHES.build({"type": "quest", "page": 0}), "cache.page"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ApportionError, match=sentence) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_what_is_almost_that_is_not_refused():
    Streaming(sinks=4).check(SHAPE, 5)
    Snapkv().check(SHAPE, 33)
    assert CACHES.build({"type": "random", "seed": 3}) == Random(seed=3)
    assert CACHES.build({"type": "adamas", "thresholds": [-1, 0, 2]}).thresholds == (-1.0, 0.0, 2.0)
