"""Signs that follow from a seed and their place, and what a projection by them keeps of lengths and angles."""

from itertools import pairwise

import pytest
import torch

from apportion.signals.projection import BLOCK, WORD, projected, signs

CPU = torch.device("cpu")


@pytest.mark.parametrize("width", [WORD, 3 * WORD, 1024])
def test_signs_are_plus_and_minus_one_in_equal_number(width):
    made = signs(0, 2048, width, 3, CPU)
    assert made.shape == (2048, width) and made.dtype == torch.float32
    assert torch.equal(made.abs(), torch.ones_like(made))
    # Of each row and of each column half, to five standard deviations.
    assert float(made.mean(0).abs().max()) < 5 / 2048**0.5
    assert float(made.mean(1).abs().max()) < 5 / width**0.5
    # No two rows, and no two columns, go together.
    off = made @ made.T / width - torch.eye(2048)
    assert float(off.abs().max()) < 6 / width**0.5
    between = made.T @ made / 2048 - torch.eye(width)
    assert float(between.abs().max()) < 6 / 2048**0.5


@pytest.mark.parametrize("cuts", [(0, 1, 37, 600), (0, 512, 600), (0, 599, 600)])
def test_they_are_the_same_whatever_block_they_are_made_in(cuts):
    whole = signs(0, 600, 128, 5, CPU)
    parts = [signs(start, end - start, 128, 5, CPU) for start, end in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)


def literal(row, column, width, seed):
    """One sign by Python's own whole numbers: a bit of SplitMix64's of the word that it stands in."""
    words, bits = width // 64, 2**64 - 1
    place, half = divmod(column, 2 * words)
    x = (row * words + half // 2 + (seed << 40)) * 0x9E3779B97F4A7C15 & bits
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & bits
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & bits
    x ^= x >> 31
    return -1 if x >> (32 * (half % 2) + 31 - place) & 1 else 1


@pytest.mark.parametrize(("start", "width", "seed"), [(0, 64, 0), (511, 192, 7), (10**7, 128, 2**20 - 1)])
def test_they_are_the_bits_of_splitmix64(start, width, seed):
    """Literally, so that they stay what they are from one version to the next."""
    expected = [[literal(start + row, column, width, seed) for column in range(width)] for row in range(3)]
    assert signs(start, 3, width, seed, CPU).tolist() == expected


def test_another_seed_makes_other_signs():
    first, second = (signs(0, 500, 256, seed, CPU) for seed in (0, 1))
    assert abs(float((first * second).mean())) < 5 / (500 * 256) ** 0.5
    assert torch.equal(first, signs(0, 500, 256, 0, CPU))
    # Nor are they those of another place.
    rows = [{tuple(row) for row in signs(0, 500, 64, seed, CPU).tolist()} for seed in (0, 1, 2)]
    assert len(rows[0] | rows[1] | rows[2]) == 1500


def test_it_is_the_dense_product_over_all_blocks():
    length = 2 * BLOCK + 77
    vectors = torch.randn(5, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dense = vectors @ signs(0, length, 192, 9, CPU).double()
    assert torch.allclose(projected(vectors, 192, 9).double(), dense, rtol=1e-4, atol=1e-3)
    assert torch.equal(projected(vectors[2:3], 192, 9), projected(vectors[2:3].clone(), 192, 9))


def test_products_are_unbiased_and_their_error_falls_with_the_root_of_the_width():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(300, generator=generator)
    b = 0.5 * a + torch.randn(300, generator=generator)
    exact = float(a @ b)
    # The variance of one column's product, for independent signs.
    spread = float(a.square().sum() * b.square().sum() + (a @ b) ** 2 - 2 * (a * b).square().sum()) ** 0.5
    seeds, errors = 200, {}
    for width in (64, 1024):
        found = torch.tensor([float(_product(a, b, width, seed)) for seed in range(seeds)])
        assert abs(float(found.mean()) - exact) < 4 * spread / (width * seeds) ** 0.5
        errors[width] = float((found - exact).square().mean().sqrt())
        assert errors[width] == pytest.approx(spread / width**0.5, rel=0.25)
    assert errors[64] / errors[1024] == pytest.approx(4, rel=0.3)


def _product(a, b, width, seed):
    left, right = projected(torch.stack([a, b]), width, seed)
    return left @ right / width


def test_a_vector_is_its_own_likeness():
    vector = projected(torch.randn(1, 700, generator=torch.Generator().manual_seed(2)), 64, 0)[0]
    assert float(torch.nn.functional.cosine_similarity(vector, 3 * vector, dim=0)) == pytest.approx(1, abs=1e-6)
