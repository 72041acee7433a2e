"""Places and signs that follow from a seed alone, and what a projection by them keeps of lengths and angles."""

import pytest
import torch

from apportion.signals.projection import places, projected
from tests.references.selections import dense_projection

CPU = torch.device("cpu")


def literal(number, seed):
    """The bits of one number by Python's own whole numbers: SplitMix64's."""
    bits = 2**64 - 1
    x = (number + (seed << 40)) * 0x9E3779B97F4A7C15 & bits
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & bits
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & bits
    return x ^ (x >> 31)


@pytest.mark.parametrize(("start", "width", "seed"), [(0, 64, 0), (511, 192, 7), (10**7, 128, 2**20 - 1)])
def test_they_are_the_order_and_last_bits_of_splitmix64(start, width, seed):
    """Literally, so that they stay what they are from one version to the next."""
    found = [literal(start + k, seed) for k in range(width)]
    signed = [x - 2**64 if x >= 2**63 else x for x in found]
    expected = sorted(range(width), key=lambda k: signed[k])
    order, signs = places(start, width, seed, CPU)
    assert order.tolist() == expected
    assert signs.tolist() == [-1.0 if found[k] & 1 else 1.0 for k in expected]


def test_signs_fall_evenly_and_do_not_follow_the_places():
    order, signs = places(0, 2**14, 3, CPU)
    assert sorted(order.tolist()) == list(range(2**14))
    assert abs(float(signs.mean())) < 5 / 2**7
    halves = signs[: 2**13].mean() - signs[2**13 :].mean()
    assert abs(float(halves)) < 8 / 2**7


def test_another_seed_or_stretch_makes_another_order():
    first, again = places(0, 512, 0, CPU), places(0, 512, 0, CPU)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for other in (places(0, 512, 1, CPU), places(512, 512, 0, CPU)):
        assert int((first[0] == other[0]).sum()) < 12
        assert abs(float((first[1] * other[1]).mean())) < 5 / 512**0.5


@pytest.mark.parametrize("length", [64, 192, 2 * 192, 2 * 192 + 77, 50])
def test_it_is_the_product_with_the_dense_matrix(length):
    vectors = torch.randn(5, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dense = dense_projection(length, 192, 9)
    # Every number goes to one place, with a sign, and no two of a stretch to the same.
    assert torch.equal(dense.abs().sum(1), torch.ones(length, dtype=torch.float64))
    assert float(dense.abs().sum(0).max()) <= -(-length // 192)
    assert torch.allclose(projected(vectors, 192, 9).double(), vectors @ dense, rtol=1e-5, atol=1e-5)
    assert torch.equal(projected(vectors[2:3], 192, 9), projected(vectors, 192, 9)[2:3])


def test_products_are_unbiased_and_their_error_falls_with_the_root_of_the_width():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(3000, generator=generator)
    b = 0.5 * a + torch.randn(3000, generator=generator)
    exact = float(a @ b)
    # The variance of a dense projection by independent signs, times the width.
    spread = float(a.square().sum() * b.square().sum() + (a @ b) ** 2 - 2 * (a * b).square().sum()) ** 0.5
    seeds, errors = 200, {}
    for width in (64, 1024):
        found = torch.tensor([float(_product(a, b, width, seed)) for seed in range(seeds)])
        assert abs(float(found.mean()) - exact) < 4 * spread / (width * seeds) ** 0.5
        errors[width] = float((found - exact).square().mean().sqrt())
        # Within a stretch nothing meets, so that it is somewhat less.
        assert 0.5 * spread / width**0.5 < errors[width] < 1.2 * spread / width**0.5
    assert errors[64] > 3 * errors[1024]


def _product(a, b, width, seed):
    left, right = projected(torch.stack([a, b]), width, seed)
    return left @ right


def test_a_vector_is_its_own_likeness():
    vector = projected(torch.randn(1, 700, generator=torch.Generator().manual_seed(2)), 64, 0)[0]
    assert float(torch.nn.functional.cosine_similarity(vector, 3 * vector, dim=0)) == pytest.approx(1, abs=1e-6)
