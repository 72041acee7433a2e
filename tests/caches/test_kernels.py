"""Codes, distances and choosing: by loops, by torch and by the literal version, as equal integers."""

import itertools

import pytest
import torch
from scipy.linalg import hadamard as scipys

from apportion.caches import _kernels, _loops
from apportion.caches._cache import best, ends, nearest
from apportion.caches._codes import above, code, hadamard, lloyd_max, quartiles
from apportion.caches._rows import Rows, gathered
from apportion.caches.quest import page_scores
from tests.caches.driving import sets
from tests.references import decoding as literal

LENGTHS = (1, 15, 16, 17, 4097)


def planes(codes):
    """Bit planes (rows, 2 W, n) of codes (rows, n, d)."""
    return _kernels.planes_of((codes > 0, codes > 1, codes > 2)).transpose(1, 2).contiguous()


def random_codes(*shape, seed=0):
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed))


def by_loops(loop, held, other, dtype):
    out = torch.empty(held.shape[0], held.shape[2], dtype=dtype)
    loop(_kernels._whole(held), other, held.shape[2], out.numpy())
    return out


@pytest.mark.parametrize("way", ["dispatched", "loops", "torch", "numpy"])
def test_all_sixteen_pairs_of_codes_are_as_far_apart_as_they_are(way):
    for a, b in itertools.product(range(4), repeat=2):
        held, asked = (torch.full((1, 1, 8), value) for value in (a, b))
        queries = planes(asked).transpose(1, 2).contiguous()
        if way == "loops":
            found = by_loops(_loops.hamming3, planes(held), _kernels._unsigned(queries), torch.int32)
        else:
            ways = {
                "dispatched": _kernels.hamming3,
                "torch": _kernels.hamming3_by_torch,
                "numpy": _kernels.hamming3_by_numpy,
            }
            found = ways[way](planes(held), queries)
        assert found.item() == 8 * abs(a - b), (a, b)


def test_differing_bits_are_wrong_for_one_pair_alone():
    wrong = [
        (a, b)
        for a, b in itertools.product(range(4), repeat=2)
        if literal.distance([a], [b], "xor") != literal.distance([a], [b])
    ]
    assert wrong == [(1, 2), (2, 1)]


@pytest.mark.parametrize("head", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("n", LENGTHS)
def test_distances_are_the_same_integers_everywhere(n, head):
    held, asked = random_codes(2, n, head), random_codes(2, 3, head, seed=1)
    wanted = (held[:, :, None] - asked[:, None]).abs().sum((2, 3)).int()
    queries = planes(asked).transpose(1, 2).contiguous()
    assert torch.equal(_kernels.hamming3(planes(held), queries), wanted)
    assert torch.equal(_kernels.hamming3_by_torch(planes(held), queries), wanted)
    assert torch.equal(_kernels.hamming3_by_numpy(planes(held), queries), wanted)
    few = planes(held[:, :40])
    assert torch.equal(by_loops(_loops.hamming3, few, _kernels._unsigned(queries), torch.int32), wanted[:, :40])
    rows = [sum(literal.distance(held[0, j].tolist(), query.tolist()) for query in asked[0]) for j in range(min(n, 17))]
    assert wanted[0, :17].tolist() == rows


@pytest.mark.parametrize("head", [8, 64, 128])
@pytest.mark.parametrize("n", LENGTHS)
def test_tables_say_the_same_everywhere(n, head):
    held = random_codes(2, n, head)
    table = torch.randn(2, head, 4, generator=torch.Generator().manual_seed(2))
    wanted = torch.gather(table[:, None].expand(2, n, head, 4), 3, held[..., None]).sum((2, 3))
    found = _kernels.looked_up(planes(held), table)
    assert torch.allclose(found, wanted, atol=1e-4)
    tables = _kernels._fours(table)
    assert torch.equal(_kernels.looked_up_by_torch(planes(held), tables), found)
    few = planes(held[:, :20])
    assert torch.equal(by_loops(_loops.looked_up, few, tables.numpy(), torch.float32), found[:, :20])


def test_planes_in_a_buffer_with_room_are_read_where_they_are():
    rows = Rows()
    held, asked = random_codes(3, 100, 64), random_codes(3, 1, 64, seed=1)
    for part in held.split(30, dim=1):
        rows.append(planes(part))
    view = rows.view()
    assert _kernels._whole(view).shape[2] > 100
    queries = planes(asked).transpose(1, 2).contiguous()
    assert torch.equal(_kernels.hamming3(view, queries), (held - asked).abs().sum(2).int())


@pytest.mark.parametrize("n", LENGTHS)
def test_the_smallest_are_found_and_of_equal_ones_the_newer(n):
    scores = torch.randint(-1, 6, (3, n), generator=torch.Generator().manual_seed(n), dtype=torch.int32)
    for count in {1, min(n, 2), (n + 1) // 2, n}:
        wanted = [sorted(sorted(range(n), key=lambda j, row=row: (row[j], -j))[:count]) for row in scores.tolist()]
        assert _kernels.smallest(scores, count, 5).tolist() == wanted
        assert _kernels.largest(-scores, count).tolist() == wanted
        assert _kernels.largest(-scores.float(), count).tolist() == wanted
        out = torch.empty(1, count, dtype=torch.int64)
        _loops.smallest(scores[:1].numpy(), 5, out.numpy())
        assert out.tolist() == wanted[:1]


def test_the_largest_of_floats_are_in_their_order_by_rank_too():
    scores = torch.tensor([[0.0, -0.0, -torch.inf, 1e-30, -1e-30, torch.inf, 3.0, -3.0]])
    assert _kernels.largest(scores, 8, ranked=True).tolist() == [[5, 6, 3, 1, 0, 4, 7, 2]]
    assert _kernels.largest(scores, 3).tolist() == [[3, 5, 6]]


def test_padding_is_never_chosen_and_some_always_are():
    valid = torch.tensor([False, False, True, True, True, True, True, True]).expand(1, 1, 8)
    scores = torch.tensor([9.0, 9, 1, 5, 4, 3, 2, 0]).expand(1, 1, 8)
    assert sets(best(scores.clone(), valid, 3)) == {(0, 0): {3, 4, 7}}
    assert sets(best(scores.clone(), valid, 3, sinks=1)) == {(0, 0): {2, 3, 7}}
    assert sets(best(scores.clone(), None, 3, newest=2, sinks=1)) == {(0, 0): {0, 6, 7}}
    assert sets(best(scores.clone(), valid, 8)) == {(0, 0): {2, 3, 4, 5, 6, 7}}
    distances = (9 - scores).int()
    for given in ({}, {"sinks": 1}, {"newest": 2}):
        for mask in (None, valid):
            wanted = best(scores.clone(), mask, 4, **given)
            assert sets(nearest(distances.clone(), mask, 4, 9, **given)) == sets(wanted)


@pytest.mark.parametrize(("budget", "sinks"), [(1, 4), (4, 4), (5, 4), (7, 0), (30, 4)])
def test_the_ends_are_the_same_with_and_without_a_mask(budget, sinks):
    from apportion.caches import Held

    keys = torch.randn(1, 2, 20, 4)
    without = Held(keys, keys, None, {}, 0, 1.0)
    with_mask = without._replace(valid=torch.ones(1, 2, 20, dtype=torch.bool))
    wanted = literal.streaming(list(range(20)), min(budget, 20), sinks)
    for held in (without, with_mask):
        assert sets(ends(held, budget, sinks)) == {(0, 0): wanted, (0, 1): wanted}


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_the_hadamard_matrix_is_orthonormal_and_its_own_inverse(size):
    matrix = hadamard(torch.eye(size, dtype=torch.float64))
    assert torch.allclose(matrix, torch.from_numpy(scipys(size)).double() / size**0.5, atol=1e-12, rtol=0)
    assert torch.allclose(matrix, literal.sylvester(size), atol=1e-12, rtol=0)
    assert torch.allclose(matrix @ matrix, torch.eye(size, dtype=torch.float64), atol=1e-12, rtol=0)
    q, k = torch.randn(2, 5, size, dtype=torch.float64)
    assert torch.allclose((hadamard(q) * hadamard(k)).sum(-1), (q * k).sum(-1), atol=1e-10)


@pytest.mark.parametrize("size", [3, 20, 80, 96])
def test_a_head_that_is_no_power_of_two_is_filled_with_zeros(size):
    q, k = torch.randn(2, 5, size, dtype=torch.float64)
    assert hadamard(q).shape[-1] == max(8, 1 << (size - 1).bit_length())
    assert torch.allclose((hadamard(q) * hadamard(k)).sum(-1), (q * k).sum(-1), atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_butterflies_are_equal_bit_by_bit(dtype):
    x = torch.randn(3, 2, 7, 64, dtype=dtype)
    rows = x.clone().view(-1, 64)
    _loops.butterflies(rows.numpy())
    assert torch.equal(_kernels.butterflies(x), _kernels.butterflies_by_torch(x))
    assert torch.equal(rows.view_as(x), _kernels.butterflies_by_torch(x))


def test_quartiles_leave_padding_out():
    x = torch.randn(2, 2, 9, 4, dtype=torch.float64)
    counted = torch.ones(2, 2, 9, dtype=torch.bool)
    counted[0, :, :5] = False
    found = quartiles(x, counted)
    for head in range(2):
        assert found[0, head, :, 0].tolist() == literal.quartiles(x[0, head, 5:])
        assert found[1, head, :, 0].tolist() == literal.quartiles(x[1, head])
    assert torch.equal(quartiles(x, None)[1], found[1])


def test_lloyd_maxs_levels_are_those_of_a_normal_variable():
    x = 3 * torch.randn(1, 1, 20000, 2, generator=torch.Generator().manual_seed(0)) + 5
    thresholds, centres = lloyd_max(x, None)
    assert thresholds[0, 0, :, 0].tolist() == pytest.approx([5 - 2.945, 5, 5 + 2.945], abs=0.25)
    assert centres[0, 0, :, 1].tolist() == pytest.approx([-4.531, -1.358, 1.358, 4.531], abs=0.3)
    codes = code(x, thresholds)
    levels = centres.transpose(2, 3)[:, :, None].expand(1, 1, 20000, 2, 4)
    error = torch.gather(levels, 4, codes[..., None])[..., 0] + 5 - x
    assert error.square().mean().item() / 9 == pytest.approx(0.1175, rel=0.06)


def test_lloyd_max_of_equal_numbers_has_levels_in_order():
    thresholds, centres = lloyd_max(torch.full((1, 1, 10, 3), 2.0), None)
    assert torch.isfinite(centres).all() and (thresholds.diff(dim=2) >= 0).all()
    assert torch.equal(above(torch.full((1, 1, 1, 3), 2.0), thresholds)[0], torch.zeros(1, 1, 1, 3, dtype=torch.bool))


def test_a_pages_score_is_never_below_any_of_its_products():
    made = torch.Generator().manual_seed(0)
    violations = 0
    for _ in range(10):
        keys = torch.randn(10_000, 16, 32, generator=made) * torch.rand(10_000, 1, 32, generator=made).exp()
        query = torch.randn(1, 1, 1, 32, generator=made)
        bound = page_scores(query, keys.amin(1)[None, None], keys.amax(1)[None, None])[0, 0]
        largest = (keys @ query[0, 0, 0]).amax(1)
        violations += int((bound < largest - 1e-4 * largest.abs()).sum())
    assert violations == 0


def test_rows_are_taken_from_buffers_and_from_anything_else():
    rows, whole = Rows(), torch.randn(2, 3, 90, 5)
    for part in whole.split(37, dim=2):
        rows.append(part)
    index = torch.stack([torch.randperm(90)[:7] for _ in range(6)]).view(2, 3, 7)
    wanted = torch.gather(whole, 2, index[..., None].expand(2, 3, 7, 5))
    for given in (rows.view(), whole, whole.transpose(2, 3).contiguous().transpose(2, 3), whole[..., :5]):
        assert torch.equal(gathered(given, index), wanted)
    narrow = torch.randn(1, 1, 4, 8)[..., :5]
    assert torch.equal(gathered(narrow, torch.tensor([[[3]]])), narrow[:, :, 3:])
