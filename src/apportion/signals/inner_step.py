"""The optimizer's next step as a function of the gradient, and its elementwise derivative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from apportion._errors import ApportionError


@dataclass(frozen=True)
class SgdStep:
    """theta' = theta - lr * g."""

    lr: float

    def update(self, name: str, gradient: Tensor) -> Tensor:
        """Return U(g), what is subtracted from the parameter, divided by lr."""
        return gradient

    def derivative(self, name: str, gradient: Tensor) -> Tensor:
        """Return dU/dg elementwise."""
        return torch.ones_like(gradient)

    def precondition(self, name: str, direction: Tensor) -> Tensor:
        """Return the direction as the step goes along it: unchanged."""
        return direction


@dataclass(frozen=True)
class AdamStep:
    """Adam's step from its present moments (Kingma & Ba 2015); decoupled weight decay does not depend on g.

    ``moments`` maps a parameter's name to its (first, second) moment; a parameter without moments starts at zero.
    ``step`` is the number of steps taken so far.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    step: int = 0
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def _corrected(self, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (b1, b2), t = self.betas, self.step + 1
        zero = torch.zeros_like(gradient)
        first, second = self.moments.get(name, (zero, zero))
        mean = (b1 * first + (1 - b1) * gradient) / (1 - b1**t)
        square = (b2 * second + (1 - b2) * gradient * gradient) / (1 - b2**t)
        # An entry that never had a gradient has the square root's infinite slope at zero; it counts as flat there.
        seen = square > 0
        root = torch.where(seen, torch.where(seen, square, torch.ones_like(square)).sqrt(), zero)
        return mean, root

    def update(self, name: str, gradient: Tensor) -> Tensor:
        """Return U(g) = m_hat / (sqrt(v_hat) + eps)."""
        mean, root = self._corrected(name, gradient)
        return mean / (root + self.eps)

    def derivative(self, name: str, gradient: Tensor) -> Tensor:
        """Return dU/dg elementwise, the momentum and both bias corrections included."""
        (b1, b2), t = self.betas, self.step + 1
        mean, root = self._corrected(name, gradient)
        slope = torch.where(
            root > 0, (1 - b2) * gradient / ((1 - b2**t) * torch.where(root > 0, root, torch.ones_like(root))), root
        )
        return (1 - b1) / (1 - b1**t) / (root + self.eps) - mean * slope / (root + self.eps) ** 2

    def precondition(self, name: str, direction: Tensor) -> Tensor:
        """Return the direction times `preconditioner`."""
        return direction * self.preconditioner(name, direction)

    def preconditioner(self, name: str, like: Tensor) -> Tensor:
        """Return 1 / (sqrt(v_hat) + eps) of the past steps: the derivative with the momentum left out.

        It is 0 where no gradient was ever seen: Adam's step there is bounded, the derivative 1/eps is not, and a single
        rare token would drown every other signal.
        """
        if name not in self.moments or self.step == 0:
            return torch.ones_like(like)
        square = self.moments[name][1] / (1 - self.betas[1] ** self.step)
        return torch.where(square > 0, 1 / (square.sqrt() + self.eps), torch.zeros_like(square))


InnerStep = SgdStep | AdamStep

# Values of ``training.optim`` whose step is one of the above, with its state where `of_optimizer` reads it.
FOLLOWED = ("adamw_torch", "adamw_torch_fused", "sgd")


def check_followed(
    optim: str,
    who: str = "ADAPT mixtures look",
    instead: str = (
        ", or with mixture.estimator 'in_run' set 'mixture.precondition: false', which goes by plain gradients"
    ),
) -> None:
    """Refuse an optimizer whose step is not known here.

    Args:
        optim: As ``training.optim`` names it.
        who: Looks one step ahead, as the error begins.
        instead: What else can be done, as it ends.

    Raises:
        ApportionError: It is not one of ``FOLLOWED``.
    """
    if optim not in FOLLOWED:
        raise ApportionError(
            f"{who} one step of the optimizer ahead, which is known of {', '.join(FOLLOWED)}, not of '{optim}': set "
            f"'training.optim' to one of these{instead}."
        )


def of_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], lr: float) -> InnerStep:
    """Read the inner step off a torch optimizer: Adam's with its moments, or plain SGD.

    Args:
        optimizer: The optimizer in use, as `check_followed` allows.
        names: Each trainable parameter's name.
        lr: The learning rate of the step to come.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return SgdStep(lr)
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    step = 0
    for parameter, state in optimizer.state.items():
        if "exp_avg_sq" in state and parameter in names:
            moments[names[parameter]] = (state["exp_avg"], state["exp_avg_sq"])
            step = max(step, int(state["step"]))
    group = optimizer.param_groups[0]
    return AdamStep(lr, tuple(group["betas"]), group["eps"], step, moments)


def inner_step(model: nn.Module, optimizer: torch.optim.Optimizer | None, lr: float) -> InnerStep:
    """Return the step that ``model`` is about to take: its optimizer's, or a plain one along the gradient for None."""
    if optimizer is None:
        return SgdStep(lr)
    return of_optimizer(optimizer, {parameter: name for name, parameter in model.named_parameters()}, lr)
