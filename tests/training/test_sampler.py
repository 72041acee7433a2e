import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.training.sampler import TaskSampler


def make(sizes=(5, 40, 7), longest=9, seed=0, **settings):
    rng = np.random.default_rng(sum(sizes) + longest)
    supervised = [rng.integers(1, longest + 1, size) for size in sizes]
    return TaskSampler(list(sizes), supervised, seed=seed, **settings), supervised


@st.composite
def cases(draw):
    """Sizes, a mixture with zeros and very small shares in it, the longest example, step sizes, a seed."""
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    raw = draw(st.lists(st.sampled_from([0, 1e-3, 0.1, 1, 3, 7]), min_size=len(sizes), max_size=len(sizes)))
    raw[draw(st.integers(0, len(sizes) - 1))] += 1
    steps = draw(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    p = np.array(raw) / np.sum(raw)
    return sizes, p, draw(st.integers(1, 50)), steps, draw(st.integers(0, 3))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_realised_example_shares_stay_within_one_example(case):
    sizes, p, longest, steps, seed = case
    sampler, _ = make(sizes, longest, seed)
    for n in steps:
        assert len(sampler.draw(p, n)) == n
        drawn = sampler.drawn_examples
        assert np.abs(drawn - p * drawn.sum()).max() <= 1 + 1e-6


@given(cases())
@settings(max_examples=60, deadline=None)
def test_realised_token_shares_stay_within_one_example(case):
    sizes, p, longest, steps, seed = case
    sampler, supervised = make(sizes, longest, seed, unit="tokens")
    for n in steps:
        assert len(sampler.draw(p, n)) == n
        drawn = sampler.drawn_supervised
        assert np.abs(drawn - p * drawn.sum()).max() <= max(map(max, supervised)) + 1e-6


@given(cases(), st.sampled_from(["examples", "tokens"]), st.sampled_from(["systematic", "multinomial"]))
@settings(max_examples=60, deadline=None)
def test_counters_agree_with_what_was_drawn_and_zero_shares_are_never_drawn(case, unit, draws):
    sizes, p, longest, steps, seed = case
    sampler, supervised = make(sizes, longest, seed, unit=unit, draws=draws)
    items = [item for n in steps for item in sampler.draw(p, n)]
    assert sampler.drawn_examples.tolist() == [sum(task == i for task, _ in items) for i in range(len(sizes))]
    tokens = np.bincount([t for t, _ in items], [supervised[t][i] for t, i in items], minlength=len(sizes))
    assert sampler.drawn_supervised.tolist() == tokens.tolist()
    assert sampler.epochs == pytest.approx(sampler.drawn_examples / np.array(sizes))
    assert not sampler.drawn_examples[p == 0].any()


@given(cases(), st.sampled_from(["examples", "tokens"]), st.sampled_from(["systematic", "multinomial"]))
@settings(max_examples=60, deadline=None)
def test_a_resumed_sampler_continues_identically(case, unit, draws):
    sizes, p, longest, steps, seed = case
    sampler, _ = make(sizes, longest, seed, unit=unit, draws=draws, max_epochs=6.5)
    resumed, _ = make(sizes, longest, seed, unit=unit, draws=draws, max_epochs=6.5)
    for n in steps:
        items = sampler.draw(p, n)
        sampler.put_back(items[len(items) - n // 4 :])
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    other = np.roll(p, 1)
    for n in steps:
        for q in (p, other):
            assert sampler.draw(q, n) == resumed.draw(q, n)
    assert sampler.state_dict() == resumed.state_dict()


@given(cases(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_epoch_sees_every_example_once_even_after_putting_back(case, data):
    sizes, p, longest, steps, seed = case
    sampler, _ = make(sizes, longest, seed)
    used = []
    for n in steps:
        items = sampler.draw(p, n)
        unused = data.draw(st.lists(st.sampled_from(range(n)), unique=True, max_size=n)) if n else []
        sampler.put_back([items[i] for i in unused])
        used += [item for i, item in enumerate(items) if i not in unused]
    assert sampler.drawn_examples.sum() == len(used)
    for task, size in enumerate(sizes):
        counts = Counter(index for t, index in used if t == task)
        seen = [counts[index] for index in range(size)]
        whole = sum(seen) // size
        # What was put back belongs to the epoch it came from, and is still waiting there.
        waiting = len(sampler.state_dict()["returned"][task])
        assert max(seen) - min(seen) <= 1 + waiting
        if not waiting:
            assert set(seen) <= {whole, whole + 1}


def test_putting_everything_back_undoes_the_draw():
    sampler, _ = make(unit="tokens")
    p = np.array([0.2, 0.5, 0.3])
    sampler.draw(p, 13)
    before = sampler.state_dict()
    items = sampler.draw(p, 10)
    sampler.put_back(items)
    after = sampler.state_dict()
    for key in ("examples", "tokens"):
        assert after[key] == before[key]
    assert after["owed"] == pytest.approx(before["owed"])
    assert sorted(sampler.draw(p, 10)) == sorted(items)


def test_only_the_last_draw_can_be_put_back_and_only_once():
    sampler, _ = make()
    first = sampler.draw(np.array([0.2, 0.5, 0.3]), 5)
    last = sampler.draw(np.array([0.2, 0.5, 0.3]), 5)
    sampler.put_back(last[3:])
    for wrong in (last[3:], first[:1]):
        with pytest.raises(ValueError, match="last draw"):
            sampler.put_back(wrong)


def of_task(items, task):
    return [index for t, index in items if t == task]


def test_order_inside_a_task_does_not_depend_on_the_others():
    one, _ = make(sizes=(10, 40, 7), seed=3)
    other, _ = make(sizes=(10, 40, 7), seed=3, draws="multinomial", unit="tokens")
    a = [i for _ in range(20) for i in of_task(one.draw(np.array([0.3, 0.3, 0.4]), 8), 0)]
    b = [i for _ in range(20) for i in of_task(other.draw(np.array([0.7, 0.0, 0.3]), 8), 0)]
    assert len(a) >= 40
    assert a == b[: len(a)]
    assert sorted(a[:10]) == sorted(a[10:20]) == list(range(10))
    assert a[:10] != a[10:20]  # reshuffled


def test_seeded():
    p = np.array([0.2, 0.5, 0.3])

    def items(seed):
        sampler, _ = make(seed=seed)
        return [sampler.draw(p, 7) for _ in range(3)]

    assert items(1) == items(1)
    assert items(1) != items(2)


def test_equal_shares_favour_no_task():
    first = Counter()
    for seed in range(40):
        sampler, _ = make(sizes=(5,) * 8, seed=seed)
        first.update(task for task, _ in sampler.draw(np.full(8, 1 / 8), 4))
    assert set(first) == set(range(8))


def test_positions_in_a_step_are_shuffled():
    sampler, _ = make(sizes=(50, 50))
    firsts = [sampler.draw(np.array([0.5, 0.5]), 2)[0][0] for _ in range(40)]
    assert 8 < sum(firsts) < 32


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_multinomial_draws_have_the_right_rates(unit):
    p, n = np.array([0.1, 0.6, 0.3, 0.0]), 6000
    supervised = [np.array([60, 80]), np.array([2, 3, 4]), np.array([11] * 5), np.array([1])]
    sampler = TaskSampler([2, 3, 5, 1], supervised, seed=5, unit=unit, draws="multinomial")
    sampler.draw(p, n)
    drawn = sampler.drawn_examples if unit == "examples" else sampler.drawn_supervised
    assert drawn / drawn.sum() == pytest.approx(p, abs=0.03)
    assert drawn[3] == 0


@given(st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_changing_mixture_is_followed(seed):
    rng = np.random.default_rng(seed)
    sampler, _ = make(sizes=(9, 9, 9, 9, 9), seed=seed)
    wanted = np.zeros(5)
    for _ in range(60):
        p = rng.dirichlet(np.full(5, 0.5))
        sampler.draw(p, 6)
        wanted += 6 * p
        assert np.abs(sampler.drawn_examples - wanted).max() < 2


@pytest.mark.parametrize("draws", ["systematic", "multinomial"])
def test_a_capped_task_gives_its_share_to_the_others(draws):
    sampler, _ = make(sizes=(4, 100, 100), max_epochs=1.5, draws=draws)
    p = np.array([0.5, 0.25, 0.25])
    assert sampler.available(p).tolist() == p.tolist()
    for _ in range(12):
        sampler.draw(p, 10)
    assert sampler.available(p).tolist() == [0, 0.25, 0.25]
    assert not sampler.available(np.array([1.0, 0, 0])).any()
    assert sampler.drawn_examples[0] == 6
    assert sampler.drawn_examples.sum() == 120
    if draws == "systematic":
        assert abs(sampler.drawn_examples[1] - sampler.drawn_examples[2]) <= 2


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_draws_run_dry_under_the_cap_after_exactly_what_it_leaves(unit):
    sampler, supervised = make(sizes=(4, 9, 3), max_epochs=2.5, unit=unit)
    p = np.array([0.3, 0.3, 0.4])
    available = sampler.most(p, supervised)
    assert sampler.most(np.array([0.0, 1.0, 0.0]), supervised) < available
    assert len(sampler.draw(p, 30)) == 30
    assert len(sampler.draw(p, 30)) == 10 + 22 + 7 - 30
    assert sampler.draw(p, 30) == []
    assert sampler.drawn_supervised.sum() == available
    assert 2 * sum(map(sum, supervised)) < available < 3 * sum(map(sum, supervised))


def test_without_a_cap_there_is_no_end():
    sampler, supervised = make(sizes=(1, 2))
    assert sampler.most(np.array([0.5, 0.5]), supervised) == float("inf")
    sampler.draw(np.array([0.5, 0.5]), 100)
    assert sampler.epochs == pytest.approx([50, 25])


@pytest.mark.parametrize(
    "p",
    [[0.5, 0.5], [0.5, 0.5, 0.1], [1.2, -0.2, 0.0], [float("nan"), 0.5, 0.5], [0.0, 0.0, 0.0], [float("inf"), 0, 0]],
)
def test_a_mixture_that_is_no_distribution_is_refused(p):
    sampler, _ = make()
    before = sampler.state_dict()
    with pytest.raises(ApportionError, match="mixture"):
        sampler.draw(np.array(p), 4)
    assert sampler.state_dict() == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"unit": "tokens"}, {"draws": "multinomial"}, {"sizes": (5, 40, 8)}])
def test_a_state_of_another_run_is_refused(change):
    sampler, _ = make()
    other, _ = make(**change)
    with pytest.raises(ApportionError, match=f"'{next(iter(change))}'"):
        sampler.load_state_dict(other.state_dict())


@pytest.mark.parametrize("supervised", [[[1, 2]], [[1, 2], []], [[1, 2], [1, 0]]])
def test_sizes_must_match_and_every_example_must_count(supervised):
    with pytest.raises(ValueError):
        TaskSampler([2, len(supervised[-1])], [np.array(tokens) for tokens in supervised], seed=0)


@pytest.mark.parametrize("cap", [0, -1, float("nan")])
def test_a_cap_must_be_positive(cap):
    with pytest.raises(ApportionError, match="max_epochs"):
        make(max_epochs=cap)
