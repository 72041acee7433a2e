"""Adamas: against sets and loops with thresholds taken literally, its invariances, and a planted key."""

import pytest
import torch

from apportion.caches import Adamas, Streaming
from apportion.caches._codes import hadamard
from tests.caches.driving import chosen, driven
from tests.caches.test_plain import CASES, agree, wanted
from tests.references import decoding as literal

W = 32


def literal_thresholds(run, row, head, method):
    """The thresholds of keys and of queries: from the prompt, or all keys where they are few."""
    n, positions = run.prompt_queries.shape[2], run.positions(row)
    groups = run.prompt_queries.shape[1] // run.keys.shape[1]
    if method.thresholds != "quartiles":
        numbers = (-10, 0, 10) if method.thresholds == "fixed" else method.thresholds
        return numbers, numbers
    few = run.keys.shape[2] <= 64
    keys = run.keys[row, head][[j for j in positions if few or j < n]]
    start = max(run.padding[row], n - W)
    queries = run.prompt_queries[row, head * groups : (head + 1) * groups, start:]
    return literal.quartiles(literal.turned(keys)), literal.quartiles(literal.turned(queries))


METHODS = [
    {},
    {"estimator": "xor"},
    {"group": "query"},
    {"recent": 5, "sinks": 3},
    {"thresholds": (-0.5, 0.0, 0.5)},
]


@pytest.mark.parametrize("budget", [1, 9, 40])
@pytest.mark.parametrize("case", [*CASES, {"prompt": 45}, {"head": 20, "padding": (5,)}, {"head": 6}])
@pytest.mark.parametrize("options", METHODS)
def test_the_nearest_by_codes_are_read(options, case, budget):
    method = Adamas(dense_layers=0, **options)
    run = driven(method, budget, **case)
    known = {"estimator": method.estimator, "group": method.group, "recent": method.recent, "sinks": method.sinks}

    def keep(row, head):
        of_keys, of_queries = literal_thresholds(run, row, head, method)
        return literal.adamas(
            run.group(row, head),
            run.keys[row, head],
            run.positions(row),
            budget,
            of_keys=of_keys,
            of_queries=of_queries,
            **known,
        )

    assert chosen(run, budget) == wanted(run, keep)
    agree(run, wanted(run, keep))


def test_thresholds_are_the_prompts_and_stay():
    run = driven(Adamas(dense_layers=0), 10, prompt=80, steps=1)
    before = run.layer.side["keys"].clone()
    later = driven(Adamas(dense_layers=0), 10, prompt=80, steps=30)
    assert torch.equal(later.layer.side["keys"], before)
    longer = driven(Adamas(dense_layers=0), 10, prompt=1500, steps=1)
    sample = literal.turned(longer.keys[0, 1, :1500][[i * 1500 // 1024 for i in range(1024)]])
    assert longer.layer.side["keys"][0, 1, :, 0].tolist() == pytest.approx(literal.quartiles(sample))


@pytest.mark.parametrize(("head", "wide"), [(16, 16), (64, 64), (128, 128), (256, 256), (80, 128)])
def test_codes_take_two_bits_a_coordinate(head, wide):
    run = driven(Adamas(dense_layers=0), 10, prompt=70, steps=2, head=head, padding=(0, 3), dtype=torch.float32)
    assert run.layer.side["codes"].nbytes == 2 * 2 * 72 * wide / 4


@pytest.mark.parametrize("thresholds", ["fixed", (-30.0, 0.0, 30.0)])
def test_thresholds_that_only_tell_signs_are_warned_of(thresholds):
    with pytest.warns(UserWarning, match="only their signs count: try 'quartiles'"):
        driven(Adamas(dense_layers=0, thresholds=thresholds), 10)


def test_thresholds_that_tell_more_are_not_warned_of(recwarn):
    driven(Adamas(dense_layers=0, thresholds=(-0.7, 0.0, 0.7)), 10)
    driven(Adamas(dense_layers=0), 10)
    assert not [warning for warning in recwarn if "signs" in str(warning.message)]


def dyadic(seed):
    """Numbers that sums of a thousand say exactly."""
    made = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randint(-64, 65, shape, generator=made).double() / 16


def test_a_vector_added_to_all_keys_changes_nothing_of_asym():
    shift = torch.randint(-32, 33, (1, 2, 1, 16), generator=torch.Generator().manual_seed(9)).double() / 4
    plain = dyadic(3)

    def shifted(*shape):
        # The only draws of two heads are keys and values, and values do not choose.
        return plain(*shape) + (shift if shape[1] == 2 else 0)

    method = Adamas(dense_layers=0, estimator="asym")
    first = driven(method, 12, prompt=128, steps=4, draw=dyadic(3))
    second = driven(method, 12, prompt=128, steps=4, draw=shifted)
    assert not torch.equal(first.keys, second.keys)
    assert chosen(first, 12) == chosen(second, 12)


def test_asym_ranks_by_products_with_centres():
    run = driven(Adamas(dense_layers=0, estimator="asym"), 12, prompt=100, padding=(0, 30))
    side = run.layer.side

    def keep(row, head):
        query, keys = literal.turned(run.group(row, head)).sum(0), literal.turned(run.keys[row, head])
        scores = {}
        for j in run.positions(row):
            total = 0.0
            for c in range(16):
                level = sum(float(keys[j, c]) > float(t) for t in side["keys"][row, head, :, c])
                total += float(query[c]) * float(side["centres"][row, head, level, c])
            scores[j] = total
        return literal.top(scores, 12, forced=[run.keys.shape[2] - 1])

    assert chosen(run, 12) == wanted(run, keep)


@pytest.mark.parametrize("estimator", ["l1", "asym", "xor"])
def test_rows_are_chosen_for_apart(estimator):
    run = driven(Adamas(dense_layers=0, estimator=estimator), 12, padding=(0, 7, 20))
    turned = torch.tensor([2, 0, 1])
    before = chosen(run, 12)
    run.layer.reorder_cache(turned)
    held = run.layer.held(run.mask[turned])
    from tests.caches.driving import sets

    after = sets(run.layer.method.select(held, run.queries[-1][turned], 12))
    assert after == {(row, head): before[turned[row].item(), head] for row in range(3) for head in range(2)}


def test_a_second_identical_request_gives_equal_bits():
    first, second = (driven(Adamas(dense_layers=0), 12, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))


def found_share(method, budget, tries, n=32768, head=64):
    """How often the key 1.5 q / |q| sqrt(d) + noise .5, planted among n Gaussian ones, is read."""
    made = torch.Generator().manual_seed(0)
    run = driven(method, budget, prompt=n, steps=1, heads=2, head=head, dtype=torch.float32, seed=1)
    found = 0
    for _ in range(tries):
        query = torch.randn(1, 2, 1, head, generator=made)
        place = int(torch.randint(64, n - budget, (1,), generator=made))
        planted = 1.5 * query / query.norm(dim=-1, keepdim=True) * head**0.5
        layer = run.layer
        old = layer.keys[:, :, place].clone()
        layer.keys[:, :, place] = (planted + 0.5 * torch.randn(1, 2, 1, head, generator=made))[:, :, 0]
        codes = layer.side.get("codes")
        if codes is not None:
            from apportion.caches._codes import above
            from apportion.caches._kernels import planes_of

            new = planes_of(above(hadamard(layer.keys[:, :, place : place + 1]), layer.side["keys"]))
            codes.view()[:, :, place] = new.transpose(2, 3).flatten(1, 2)[:, :, 0]
        found += sum(place in kept for kept in sets_of(layer, query, budget).values())
        layer.keys[:, :, place] = old
    return found / (2 * tries)


def sets_of(layer, query, budget):
    from tests.caches.driving import sets

    return sets(layer.method.select(layer.held(None), query, budget))


def test_a_planted_key_is_found_and_by_streaming_it_is_not():
    assert found_share(Adamas(dense_layers=0), 64, 250, head=128) >= 0.99
    run = driven(Streaming(), 64, prompt=32768, steps=1, heads=2, dtype=torch.float32)
    # Whatever the query, only ends are held.
    positions = run.layer.positions[0, 0].tolist()
    assert positions == [*range(4), *range(32769 - 60, 32769)]
