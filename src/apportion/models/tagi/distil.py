"""The losses of TAGI's second stage: KL to a teacher's logits, distance to a teacher's adapter.

S supervised positions, V words, B examples, T tasks; an adapter is A (T, d_in, r) and B (T, r, d_out), and changes its
module's transposed weight by Delta W^T = A B, (d_in, d_out). Source: TAGI (arXiv 2406.12382); departures by function.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from apportion._errors import ApportionError, nearest


def standardised(logits: Tensor) -> Tensor:
    """Return z-scores over the words, (x - mean) / (std + 1e-7), (S, V): only a row's shape is left to be distilled."""
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)


def kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    examples: Tensor,
    n_examples: int,
    temperature: float,
    standardise: bool = False,
) -> Tensor:
    """Return tau^2 KL(teacher || student) at temperature tau, each example's mean over its positions, (B,), fp32 or finer.

    No gradient goes to the teacher. An example without positions has 0. The factor tau^2 keeps the gradient's size where
    tau changes (Hinton, Vinyals and Dean, arXiv 1503.02531).

    Departures: the mean is over supervised positions, not over padding as well; the paper's z-scores are an option, and
    the teacher is the teacher with and without them.

    Args:
        student_logits: (S, V) at the supervised positions.
        teacher_logits: (S, V) at the same labels; the teacher's positions may be others, as it also reads the instruction.
        examples: (S,) the example that each position belongs to.
        n_examples: B.
        temperature: tau, which softens both; over 0.
        standardise: Take the z-scores of both first.

    Cost: O(S V), no pass through a model.

    Raises:
        ApportionError: The two have different vocabularies or positions.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ApportionError(
            f"The teacher's logits are {tuple(teacher_logits.shape)}, the student's {tuple(student_logits.shape)} "
            "(positions, words): a teacher needs the student's vocabulary and the same labels."
        )
    precise = torch.promote_types(student_logits.dtype, torch.float32)
    student, teacher = student_logits.to(precise), teacher_logits.detach().to(precise)
    if standardise:
        student, teacher = standardised(student), standardised(teacher)
    p, q = F.log_softmax(teacher / temperature, -1), F.log_softmax(student / temperature, -1)
    rows = temperature**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    zeros = rows.new_zeros(n_examples)
    counts = zeros.index_add(0, examples, torch.ones_like(rows))
    return zeros.index_add(0, examples, rows) / counts.clamp(min=1)


def delta_w_distance(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """Return ||A1 B1 - A2 B2||_F^2 / (d_in d_out), the mean square error between two changes of a weight, (T,).

    ||sum_i A_i B_i||_F^2 = sum_ij <A_i^T A_j, B_i B_j^T>: no (d_in, d_out) matrix is made. The same for all factors of one
    Delta W: (A R, R^-1 B) is A B. The ranks may differ. Scales (alpha / r) are the caller's to fold in: pass ``scale * B``.

    The sum is taken in fp64, for near a match its terms cancel: in fp32 nothing under about 1e-7 of ||A B||^2 is seen, and
    under autocast far less. What rounding leaves below 0 is 0, without gradient.

    Departures: the paper compares factor by factor, see `factor_distance`.

    Args:
        A1: (T, d_in, r1); any leading dimensions will do.
        B1: (T, r1, d_out).
        A2: (T, d_in, r2).
        B2: (T, r2, d_out).

    Cost: O((d_in + d_out) (r1 + r2)^2) a task, no pass through a model.
    """
    precise = torch.promote_types(torch.promote_types(A1.dtype, B1.dtype), torch.float32)
    A = torch.cat([A1.double(), -A2.double()], -1)
    B = torch.cat([B1.double(), B2.double()], -2)
    square = ((A.mT @ A) * (B @ B.mT)).sum((-2, -1)).clamp(min=0)
    return (square / (A.shape[-2] * B.shape[-1])).to(precise)


def factor_distance(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """Return MSE(A1, A2) + MSE(B1, B2), the paper's L_ins of one module, (T,), in fp32 or finer.

    It tells apart adapters that do the same, (A, B) and (A R, R^-1 B): `delta_w_distance` does not. PEFT's ``lora_A.weight``
    is A^T and its ``lora_B.weight`` B^T.

    Departures: the public code sets A beside lora_B and B beside lora_A, and multiplies by 1000; here like stands beside
    like, unmultiplied.

    Args:
        A1: (T, d_in, r); any leading dimensions will do.
        B1: (T, r, d_out).
        A2: (T, d_in, r).
        B2: (T, r, d_out).

    Raises:
        ApportionError: The ranks differ.
    """
    if A1.shape[-1] != A2.shape[-1]:
        raise ApportionError(
            f"Adapters of rank {A1.shape[-1]} and {A2.shape[-1]} cannot be compared factor by factor: give the hypernetwork "
            "its teacher's rank, or compare Delta W."
        )
    precise = torch.promote_types(A1.dtype, torch.float32)
    apart = ((A1.to(precise) - A2.to(precise)) ** 2).mean((-2, -1))
    return apart + ((B1.to(precise) - B2.to(precise)) ** 2).mean((-2, -1))


def aligned(l_ins: Tensor, weight: float | Literal["sigmoid"]) -> Tensor:
    """Return lambda2 L_ins, in the shape of ``l_ins``.

    Args:
        l_ins: L_ins, none below 0.
        weight: lambda2; "sigmoid" is the paper's sigmoid(L_ins), through which the gradient goes too, as in its code.

    Raises:
        ApportionError: ``weight`` is another word.
    """
    if isinstance(weight, str):
        if weight != "sigmoid":
            raise ApportionError(
                f"Unknown weight of L_ins '{weight}'{nearest(weight, ['sigmoid'])}; a number will do too."
            )
        return torch.sigmoid(l_ins) * l_ins
    return weight * l_ins
