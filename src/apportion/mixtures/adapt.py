"""ADAPT mixtures: learn the mixture by the meta-gradient of a smooth worst-case validation loss."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Feedback, GradientGuided, State, TaskSizes

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


def logit_gradient(alignment: Tensor, p: Tensor, entropy: float) -> Tensor:
    """Return dF/dw for F = J - entropy * H(p) and p = softmax(w), (T,).

    Args:
        alignment: s_i, the first-order decrease of J in one step that task i's draws account for, (T,).
        p: The distribution that the draws came from, (T,).
        entropy: The bonus lambda.

    The first part is -(s_i - p_i sum_k s_k), unbiased for draws from p without importance weights; the second is
    lambda p_i (log p_i + H). Both sum to zero. Source: ADAPT mixtures, arXiv 2512.04555, with theta' linear in p.
    """
    log_p = torch.log(p.clamp(min=torch.finfo(p.dtype).tiny))
    shannon = -(p * log_p).sum()
    return -(alignment - p * alignment.sum()) + entropy * p * (log_p + shannon)


class Adapt(GradientGuided):
    """Learnt mixture: logits follow the meta-gradient of a smooth worst-case validation loss, with an entropy bonus.

    What it optimises: F(w) = tau log mean_j exp(v_j(theta')/tau) - entropy * H(softmax(w)), theta' one training step on.
    Shapes: T tasks; state holds the logits and Adam's moments over them, (T,) each.
    Cost, charged to `meta`: every ``refresh`` optimizer steps a forward and backward over ``examples_per_task``
    validation examples a task, and in the ``reads`` steps after it one more matmul a trainable layer (`in_run`); or, for
    `forward` and `unrolled`, every ``refresh`` steps the passes documented in `apportion.signals.meta_gradient`.
    References: Kadasi et al., ADAPT (arXiv 2512.04555).
    Departures: the logits move by Adam (the paper leaves the step open); `in_run` takes u at theta, first order in the
    learning rate, and through the optimizer's preconditioner; a floor keeps every task in play.
    Relations: with one gradient norm for all tasks and no transfer between them it becomes the `loss` mixture.

    Attributes:
        entropy: Bonus lambda for a spread-out mixture; 0 may collapse.
        learning_rate: Adam's step on the logits.
        floor: Share of the draws spread evenly whatever the logits say.
    """

    entropy: float = Field(1e-3, ge=0)
    learning_rate: float = Field(0.06, gt=0)
    floor: float = Field(0.1, ge=0, lt=1)

    def init(self, tasks: TaskSizes) -> State:
        """Return uniform logits and empty moments."""
        zeros = torch.zeros(len(tasks.names), dtype=torch.float64)
        return {"logits": zeros, "mean": zeros, "square": zeros, "updates": torch.tensor(0)}

    def proportions(self, state: State) -> Tensor:
        """Return p = (1 - floor) softmax(w) + floor / T."""
        logits = state["logits"]
        return (1 - self.floor) * torch.softmax(logits, 0) + self.floor / len(logits)

    def update(self, state: State, feedback: Feedback) -> State:
        """Take one Adam step on the logits along the meta-gradient in ``feedback.alignment``.

        Raises:
            ApportionError: The alignment is not finite.
        """
        if feedback.alignment is None:
            return state
        if not torch.isfinite(feedback.alignment).all():
            raise ApportionError(
                "A task's alignment is not a finite number: training has diverged; lower 'training.learning_rate'."
            )
        # The floor scales every dp/dw by (1 - floor) and shifts p a little; Adam's step does not see the former.
        gradient = logit_gradient(feedback.alignment.double(), self.proportions(state), self.entropy)
        (b1, b2), t = ADAM_BETAS, int(state["updates"]) + 1
        mean = b1 * state["mean"] + (1 - b1) * gradient
        square = b2 * state["square"] + (1 - b2) * gradient**2
        step = mean / (1 - b1**t) / ((square / (1 - b2**t)).sqrt() + ADAM_EPS)
        return {
            "logits": state["logits"] - self.learning_rate * step,
            "mean": mean,
            "square": square,
            "updates": torch.tensor(t),
        }
