"""The losses of distillation: against literal versions, and what must and must not change them."""

import pytest
import torch
from torch.nn import functional as F

from apportion._errors import ApportionError
from apportion.models.tagi.distil import aligned, delta_w_distance, factor_distance, kl
from tests.references import tagi as literal
from tests.tiny import tiny_model

OWNERS = torch.tensor([0, 0, 0, 2, 2])
BOTH = pytest.mark.parametrize("standardise", [False, True])


def logits(seed, rows=5, words=7, scale=3.0):
    return scale * torch.randn(rows, words, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestKL:
    @BOTH
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_is_the_literal_one(self, standardise, temperature):
        student, teacher = logits(0), logits(1)
        expected = literal.kl(student.tolist(), teacher.tolist(), OWNERS.tolist(), 3, temperature, standardise)
        assert kl(student, teacher, OWNERS, 3, temperature, standardise).tolist() == pytest.approx(expected, abs=1e-9)

    @BOTH
    def test_is_nothing_for_the_teacher_itself_and_something_for_any_other(self, standardise):
        teacher = logits(1)
        assert kl(teacher.clone(), teacher, OWNERS, 3, 3.0, standardise).abs().max() < 1e-12
        for seed in range(2, 6):
            divergence = kl(logits(seed), teacher, OWNERS, 3, 3.0, standardise)
            assert (divergence[[0, 2]] > 1e-3).all()

    @BOTH
    def test_pulls_the_student_and_not_the_teacher(self, standardise):
        student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
        kl(student, teacher, OWNERS, 3, 3.0, standardise).sum().backward()
        assert (student.grad.abs().sum(-1) > 1e-3).all()
        assert teacher.grad is None

    def test_its_gradient_is_the_difference_of_the_softened_distributions(self):
        student, teacher = logits(0).requires_grad_(), logits(1)
        kl(student, teacher, OWNERS, 3, 3.0).sum().backward()
        difference = 3.0 * (F.softmax(student / 3.0, -1) - F.softmax(teacher / 3.0, -1))
        counts = torch.tensor([3.0, 3, 3, 2, 2], dtype=torch.float64)[:, None]
        torch.testing.assert_close(student.grad, difference.detach() / counts)

    def test_is_forward_the_teacher_first(self):
        sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
        one = torch.tensor([0])
        assert kl(sure, unsure, one, 1, 1.0) > 3 * kl(unsure, sure, one, 1, 1.0)

    def test_other_rows_change_nothing(self):
        student, teacher = logits(0), logits(1)
        before = kl(student, teacher, OWNERS, 3, 3.0)
        student[3:], teacher[3:] = 100 * torch.rand(2, 7, dtype=torch.float64), logits(9)[:2]
        after = kl(student, teacher, OWNERS, 3, 3.0)
        assert after[0] == before[0] and after[2] != before[2]

    def test_the_order_of_rows_changes_nothing(self):
        student, teacher, order = logits(0), logits(1), torch.tensor([4, 1, 0, 3, 2])
        shuffled = kl(student[order], teacher[order], OWNERS[order], 3, 3.0)
        torch.testing.assert_close(shuffled, kl(student, teacher, OWNERS, 3, 3.0))

    def test_an_example_without_positions_has_none(self):
        student = logits(0).requires_grad_()
        divergence = kl(student, logits(1), OWNERS, 3, 3.0)
        assert divergence[1] == 0
        divergence.sum().backward()
        assert student.grad.isfinite().all()

    def test_the_temperature_keeps_the_gradients_size(self):
        """Without T^2 the gradient at T = 100 would be 1e-4 of that at T = 1; with it, both are of one size."""
        sizes = []
        for temperature in (1.0, 10.0, 100.0):
            student = logits(0, scale=0.1).requires_grad_()
            kl(student, logits(1, scale=0.1), OWNERS, 3, temperature).sum().backward()
            sizes.append(float(student.grad.norm()))
        assert max(sizes) < 1.2 * min(sizes)

    def test_half_precision_is_raised(self):
        student, teacher = logits(0).bfloat16(), logits(1).bfloat16()
        divergence = kl(student, teacher, OWNERS, 3, 3.0)
        assert divergence.dtype == torch.float32
        torch.testing.assert_close(divergence, kl(student.double(), teacher.double(), OWNERS, 3, 3.0).float())

    def test_only_the_shape_of_standardised_logits_counts(self):
        student, teacher = logits(0), logits(1)
        one = kl(student, teacher, OWNERS, 3, 3.0, True)
        torch.testing.assert_close(kl(5 * student + 2, teacher, OWNERS, 3, 3.0, True), one)
        assert (kl(5 * student + 2, teacher, OWNERS, 3, 3.0)[[0, 2]] > 1.5 * one[[0, 2]]).all()

    def test_equal_logits_give_no_nan_when_standardised(self):
        student = torch.zeros(5, 7, requires_grad=True)
        kl(student, logits(1).float(), OWNERS, 3, 3.0, True).sum().backward()
        assert student.grad.isfinite().all()

    def test_another_vocabulary_is_refused(self):
        with pytest.raises(ApportionError, match="vocabulary"):
            kl(logits(0), logits(1, words=8), OWNERS, 3, 3.0)
        with pytest.raises(ApportionError, match="same labels"):
            kl(logits(0), logits(1, rows=1), OWNERS, 3, 3.0)


def adapters(seed, tasks=3, shape=(6, 5), rank=2):
    rng = torch.Generator().manual_seed(seed)
    A = torch.randn(tasks, shape[0], rank, generator=rng, dtype=torch.float64)
    return A, torch.randn(tasks, rank, shape[1], generator=rng, dtype=torch.float64)


class TestDeltaW:
    @pytest.mark.parametrize("rank", [1, 2, 4])
    def test_is_the_dense_one_whatever_the_ranks_and_scales(self, rank):
        (A1, B1), (A2, B2) = adapters(0), adapters(1, rank=rank)
        dense = [
            literal.mean_square(
                literal.delta_w(a.tolist(), b.tolist(), 0.5), literal.delta_w(c.tolist(), d.tolist(), 2.0)
            )
            for a, b, c, d in zip(A1, B1, A2, B2, strict=True)
        ]
        assert delta_w_distance(A1, 0.5 * B1, A2, 2.0 * B2).tolist() == pytest.approx(dense)

    def test_the_gradient_is_the_dense_one(self):
        factors = [x.requires_grad_() for x in (*adapters(0), *adapters(1, rank=3))]
        fast = torch.autograd.grad(delta_w_distance(*factors).sum(), factors)
        A1, B1, A2, B2 = factors
        slow = torch.autograd.grad(((A1 @ B1 - A2 @ B2) ** 2).mean((-2, -1)).sum(), factors)
        for one, other in zip(fast, slow, strict=True):
            torch.testing.assert_close(one, other)

    def test_another_gauge_is_the_same_adapter(self):
        A, B = adapters(0)
        R = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        turned = (A @ R, torch.linalg.inv(R) @ B)
        assert delta_w_distance(A, B, *turned).max() < 1e-12
        assert factor_distance(A, B, *turned).min() > 0.1
        other = adapters(1)
        torch.testing.assert_close(delta_w_distance(*turned, *other), delta_w_distance(A, B, *other))

    def test_rounding_takes_no_distance_below_nothing(self):
        A, B = adapters(0, tasks=300)
        R = torch.linalg.qr(torch.randn(300, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))[0]
        turned = A @ R, R.mT @ B
        terms = [((x.mT @ y) * (v @ w.mT)).sum((1, 2)) for (x, v) in [(A, B), turned] for (y, w) in [(A, B), turned]]
        assert (terms[0] - terms[1] - terms[2] + terms[3]).min() < 0, "the case does not arise"
        assert delta_w_distance(A, B, *turned).min() == 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_equal_adapters_are_at_no_distance_with_no_gradient(self, dtype):
        A, B = (x.to(dtype).requires_grad_() for x in adapters(0))
        distance = delta_w_distance(A, B, A.detach().clone(), B.detach().clone())
        assert (distance >= 0).all() and (distance < 1e-12).all()
        distance.sum().backward()
        assert A.grad.isfinite().all() and A.grad.abs().max() < 1e-6 and B.grad.abs().max() < 1e-6

    def test_a_near_match_in_single_precision_is_still_seen(self):
        """In fp32 the three terms would cancel to noise of 1e-7; the distance here is 1e-8 of them."""
        A, B = (x.float() for x in adapters(0, shape=(64, 48)))
        near = A + 1e-4 * torch.randn(A.shape, generator=torch.Generator().manual_seed(3))
        dense = ((A.double() @ B.double() - near.double() @ B.double()) ** 2).mean((-2, -1))
        torch.testing.assert_close(delta_w_distance(A, B, near, B).double(), dense, rtol=1e-5, atol=0)

    def test_autocast_does_not_touch_it(self):
        factors = [x.float() for x in (*adapters(0), *adapters(1))]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = delta_w_distance(*factors)
        assert torch.equal(inside, delta_w_distance(*factors))

    def test_the_start_at_no_change_has_a_live_gradient(self):
        A, B = adapters(0)
        B = torch.zeros_like(B, requires_grad=True)
        delta_w_distance(A, B, *adapters(1)).sum().backward()
        assert (B.grad.flatten(1).norm(dim=1) > 1e-3).all()

    def test_a_representable_teacher_is_recovered(self):
        teacher = [x.float() for x in adapters(0, tasks=2)]
        student = [x.float().requires_grad_() for x in adapters(1, tasks=2, rank=3)]
        optimizer = torch.optim.Adam(student, lr=0.02)
        for _ in range(1500):
            optimizer.zero_grad()
            distance = delta_w_distance(*student, *teacher)
            distance.sum().backward()
            optimizer.step()
        assert distance.max() < 1e-6
        torch.testing.assert_close(student[0] @ student[1], teacher[0] @ teacher[1], atol=1e-2, rtol=1e-2)

    def test_modules_may_be_stacked_before_the_tasks(self):
        one, other = (adapters(seed, tasks=6) for seed in (0, 1))
        stacked = delta_w_distance(*(x.unflatten(0, (2, 3)) for x in (*one, *other)))
        torch.testing.assert_close(stacked.flatten(), delta_w_distance(*one, *other))


class TestFactors:
    def test_likes_are_compared_with_peft_s_own_matrices(self):
        """The public code sets A beside lora_B. Only like beside like is no distance for the adapter itself."""
        model = tiny_model("llama", lora=True, layers=1)
        q_proj = next(module for name, module in model.named_modules() if name.endswith("up_proj"))
        lora_a, lora_b = (part["default"].weight.detach() for part in (q_proj.lora_A, q_proj.lora_B))
        A, B = lora_a.mT[None], lora_b.mT[None]
        assert factor_distance(A, B, A.clone(), B.clone()) == 0
        other_a, other_b = A + 0.5, B - 0.25
        expected = literal.factor_distance(other_a[0].tolist(), other_b[0].tolist(), lora_a.tolist(), lora_b.tolist())
        assert expected == pytest.approx(0.25 + 0.0625, rel=1e-5)
        assert float(factor_distance(other_a, other_b, A, B)) == pytest.approx(expected, rel=1e-5)
        delta = q_proj.get_delta_weight("default")
        torch.testing.assert_close(q_proj.scaling["default"] * (A @ B)[0].mT, delta)

    def test_a_square_module_does_not_hide_a_wrong_pairing(self):
        A1, B1 = adapters(0, shape=(5, 5))
        A2, B2 = adapters(1, shape=(5, 5))
        crossed = factor_distance(A1, B1, B2.mT, A2.mT)
        right = factor_distance(A1, B1, A2, B2)
        expected = ((A1 - A2) ** 2).mean((1, 2)) + ((B1 - B2) ** 2).mean((1, 2))
        torch.testing.assert_close(right, expected)
        assert (right - crossed).abs().min() > 0.01

    def test_other_ranks_are_refused(self):
        with pytest.raises(ApportionError, match="rank 2 and 4"):
            factor_distance(*adapters(0), *adapters(1, rank=4))


class TestAligned:
    def test_by_hand(self):
        losses = torch.tensor([0.0, 1.0, 4.0])
        assert aligned(losses, 0.5).tolist() == [0.0, 0.5, 2.0]
        assert aligned(losses, "sigmoid").tolist() == pytest.approx([0.0, 0.731059, 3.928055], abs=1e-5)

    def test_the_gradient_goes_through_the_sigmoid(self):
        losses = torch.tensor([1.0], requires_grad=True)
        aligned(losses, "sigmoid").backward()
        s = 0.7310586
        assert float(losses.grad) == pytest.approx(s + s * (1 - s), abs=1e-5)

    def test_another_word_is_refused_with_the_right_one(self):
        with pytest.raises(ApportionError, match="did you mean 'sigmoid'"):
            aligned(torch.ones(1), "sigmoids")
