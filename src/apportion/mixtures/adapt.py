"""ADAPT mixtures: learn the mixture by the meta-gradient of a smooth worst-case validation loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from apportion._errors import ApportionError
from apportion.mixtures._mixture import Feedback, Mixture, State, TaskSizes, on_targets
from apportion.mixtures._steps import STEPS, evidence, gathered, no_evidence
from apportion.objectives.curves import SMOOTH, empty_curve, finite_losses, recorded, reducible
from apportion.signals._cadence import Refresh
from apportion.signals._signal import TaskSignal
from apportion.signals.in_run_alignment import InRunAlignment
from apportion.signals.look_ahead import LookAhead

# Loss, in nats, added to what every task can still lose: differences below it count little.
GAIN_NOISE = 0.02
EVIDENCE = "evidence"
# The defaults of steering toward targets, where other ones than with all tasks alike (studies/targets).
TOWARD_TARGETS: Mapping[str, Any] = {
    "step": EVIDENCE,
    "refresh": 0.05,
    "reads": "paid",
    "momentum": 0.0,
    "examples": 32,
    "max_cost": 0.1,
    "entropy": 0.0,
    "learning_rate": 1.0,
    "memory": 0.9,
    "prior": 0.0,
    "share": 0.5,
}


def logit_gradient(
    alignment: Tensor, q: Tensor, entropy: float, floor: float = 0.0, drawn: Tensor | None = None
) -> Tensor:
    """Return dF/dw for F = J - entropy * H(p), p = (1 - floor) q + floor / T and q = softmax(w + a constant), (T,).

    Args:
        alignment: s_i, the first-order decrease of J in one step that task i's draws account for, (T,).
        q: The mixture before the floor, (T,).
        entropy: The bonus lambda.
        floor: Share of p spread evenly.
        drawn: Rates r that examples are drawn at, (T,), where p shares out tokens: r_i ~ p_i / m_i, m_i the mean
            length of task i. None where they are p.

    theta' = theta - eta sum_i r_i g_i, so dJ/dr_k = -s_k / r_k, and dJ = -sum_k s_k d log r_k. With Z = sum_k p_k / m_k,
    log r_k = log p_k - log m_k - log Z and d log Z / dp_j = r_j / p_j, so

        dJ/dp_j = -(s_j - r_j S) / p_j,  S = sum_k s_k          dp_j/dw_i = (1 - floor) q_j (delta_ij - q_i)

    Call D(x)_i = c_i x_i - q_i sum_j c_j x_j, with c_j = (1 - floor) q_j / p_j: then dJ/dw = -D(s - S r). Where examples
    are drawn at p, D(p) = 0 and the baseline cancels: dJ/dw = -D(s), which without a floor is -(s_i - p_i S). The
    entropy's part is lambda (1 - floor) q_i (log p_i - sum_j q_j log p_j). All sum to zero. The draws follow r, so s needs
    no importance weights. Source: ADAPT mixtures, arXiv 2512.04555, with theta' linear in r.
    """
    p = (1 - floor) * q + floor / len(q)
    # Where p underflows to 0 there is no floor, and then c is 1.
    passed = torch.where(p > 0, (1 - floor) * q / p, 1.0)
    moved = passed * (alignment if drawn is None else alignment - drawn * alignment.sum())
    log_p = torch.log(p.clamp(min=torch.finfo(p.dtype).tiny))
    spread = entropy * (1 - floor) * q * (log_p - (q * log_p).sum())
    return -(moved - q * moved.sum()) + spread


class Adapt(Mixture):
    """Learnt mixture: a prior of what each task can still lose, times logits that follow the meta-gradient.

    Toward targets that a recipe names the logits follow evidence instead, and there is no prior (docs/targets.md).

    What it optimises: F(w) = J(v(theta')) - entropy * H(p), J the run's objective (`reducible` unless the recipe says
    otherwise) of the target losses v, theta' one training step on.
    p ~ importance * (r + 0.02)^prior * exp(w), r what each task's loss can still lose by its curve; a share ``floor`` of it
    is spread evenly.
    Shapes: T tasks; state holds the logits (T,) and what their step keeps, the tasks' mean supervised tokens (T,),
    the last ``window`` measured losses (n, T) with their progress (n,), and the lowest smoothed loss of each task (T,).
    Cost, charged to `meta`: every ``refresh`` a forward and backward over ``examples_per_task``
    validation examples a task, and in ``reads`` of the steps until the next one more matmul a trainable layer (`in_run`);
    or, for `forward` and `unrolled`, every ``refresh`` the passes documented in `apportion.signals.meta_gradient`
    and a forward over the validation examples.
    References: Kadasi et al., ADAPT (arXiv 2512.04555).
    Departures: what the tasks' losses can still lose is the logits' prior; the logits move by the gradient over its
    running scale and forget (the paper leaves the step open); `in_run` takes u at theta, averaged over refreshes and
    through the optimizer's preconditioner, and reads it some steps later; a floor keeps every task in play.
    Relations: with ``learning_rate`` 0 it is a gentler `progress`. With the objective `worst`, ``step: plain`` or ``adam``,
    ``prior`` 0, ``memory`` 1, ``floor`` 0 and an exact ``estimator`` it is the paper's plain method.

    Attributes:
        estimator: `in_run` (read from the training backward), `forward` or `unrolled` (exact, dearer).
        refresh: Optimizer steps between validation passes, or a share of the budget, such as 1%.
        reads: `in_run` only: steps between two validation passes, evenly spaced, that are read and move the mixture;
            None for all, `paid` for as many steps right after the pass as cost what it did.
        momentum: `in_run` only: share of the old direction in the new one at each validation pass.
        examples_per_task: Validation examples a target in each such pass.
        examples: Validation examples of all targets together, in place of these; None for so many of each.
        max_cost: Most that steering may cost, as a share of what training will; None for no limit.
        precondition: Take u through Adam's second moment (`in_run` only; the exact estimators always do).
        entropy: Bonus lambda for a spread-out mixture; 0 may collapse.
        step: `plain` (the gradient), `adam` (Adam's step, its usual constants), `scaled` (the gradient over its running
            size) or `evidence` (no step: the logits are each task's gain over its standard error).
        learning_rate: What the step is multiplied by; for `scaled` the move of the logits at a gradient of its usual size.
        memory: What a step keeps of the logits; 1 accumulates for ever.
        prior: Power of what a task can still lose in its share; 0 leaves all to the logits.
        window: Measurements that a task's pace is read from.
        floor: Share of the draws spread evenly whatever the rest says.
        share: Of the draws that go to targets which are trained on, by importance, where other tasks are none.
    """

    plain: ClassVar[bool] = False
    advice: ClassVar[Mapping[str, str]] = {
        "narrowed": "Raise mixture.floor or mixture.entropy, so that other tasks stay in play.",
        "still": "Raise mixture.learning_rate or mixture.prior, or lower mixture.refresh to measure more often.",
        "swings": "Lower mixture.learning_rate, or raise mixture.momentum.",
        "behind": "If they matter, lower objective.tau or raise mixture.floor.",
    }
    estimator: Literal["in_run", "forward", "unrolled"] = "in_run"
    refresh: Refresh = 60
    reads: Annotated[int, Field(ge=1)] | Literal["paid"] | None = 4
    momentum: float = Field(0.7, ge=0, lt=1)
    examples_per_task: int = Field(4, ge=1)
    examples: int | None = Field(None, ge=1)
    max_cost: float | None = Field(None, gt=0)
    precondition: bool = True
    entropy: float = Field(1e-3, ge=0)
    step: Literal["plain", "adam", "scaled", "evidence"] = "scaled"
    learning_rate: float = Field(0.03, ge=0)
    memory: float = Field(0.97, ge=0, le=1)
    prior: float = Field(0.7, ge=0)
    window: int = Field(12, ge=SMOOTH)
    floor: float = Field(0.1, ge=0, lt=1)
    share: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.estimator != "in_run" and self.step == EVIDENCE:
            raise ApportionError(
                "'step: evidence' is read from training's own backward pass: leave 'estimator' at in_run."
            )
        return self

    def settled(self, targets: bool) -> Self:
        """Return the mixture with the defaults of steering by evidence, where it does so: toward targets, or if told to.

        Raises:
            ApportionError: A ``max_cost`` where it is not known how often is measured.
        """
        fitting = targets and self.estimator == "in_run"
        by_evidence = self.step == EVIDENCE if "step" in self.model_fields_set else fitting
        defaults = {k: v for k, v in TOWARD_TARGETS.items() if by_evidence and k not in self.model_fields_set}
        found = self.model_copy(update=defaults)
        counted = isinstance(found.refresh, float) and found.reads == "paid" and found.examples is not None
        if "max_cost" in defaults and not counted:
            return found.model_copy(update={"max_cost": None})
        if found.max_cost is not None and not counted:
            raise ApportionError("'mixture.max_cost' needs 'examples', 'reads: paid' and a 'refresh' such as 5%.")
        return found

    def needs(self) -> tuple[TaskSignal, ...]:
        """Ask for the alignment, by the estimator."""
        if self.estimator != "in_run":
            return (
                LookAhead(estimator=self.estimator, refresh=self.refresh, examples_per_task=self.examples_per_task),
            )
        return (
            InRunAlignment(
                refresh=self.refresh,
                reads=self.reads,
                momentum=self.momentum,
                examples_per_task=self.examples_per_task,
                precondition=self.precondition,
                examples=self.examples,
                max_cost=self.max_cost,
            ),
        )

    def init(self, tasks: TaskSizes) -> State:
        """Return logits of zero and an empty record."""
        count = len(tasks.names)
        return {
            "logits": torch.zeros(count, dtype=torch.float64),
            "lengths": tasks.supervised / tasks.examples,
            # Tasks that are no targets are wanted for what they teach, which nothing says in advance.
            "importance": tasks.importance if (tasks.importance > 0).all() else torch.ones_like(tasks.importance),
            "own": tasks.importance,
            **(no_evidence(count) if self.step == EVIDENCE else STEPS[self.step].init(count)),
            **empty_curve(count),
        }

    def proportions(self, state: State) -> Tensor:
        """Return p, (T,); the tasks' importance before the first measurement."""
        p = (1 - self.floor) * self._before_floor(state) + self.floor / len(state["logits"])
        return on_targets(self.share, state["own"], p)

    def _before_floor(self, state: State) -> Tensor:
        logits = state["logits"] + state["importance"].log()
        if len(state["losses"]):
            logits = logits + self.prior * (self._reducible(state) + GAIN_NOISE).log()
        return torch.softmax(logits, 0)

    def update(self, state: State, feedback: Feedback) -> State:
        """Record the losses in ``feedback``, and step the logits along the meta-gradient of its alignment.

        Raises:
            ApportionError: A loss or an alignment that is not finite.
        """
        if feedback.losses is not None:
            state = recorded(state, finite_losses(feedback.losses), feedback.progress, self.window)
        if feedback.alignment is not None and not torch.isfinite(feedback.alignment).all():
            raise ApportionError(
                "A task's alignment is not a finite number: training has diverged; lower 'training.learning_rate'."
            )
        if self.step == EVIDENCE:
            state = {**state, **gathered(state, feedback, self.memory)}
            return {**state, "logits": self.learning_rate * evidence(state)}
        return state if feedback.alignment is None else self._stepped(state, feedback.alignment.double())

    def _reducible(self, state: State) -> Tensor:
        return reducible(state["losses"], state["progress"], state["best"], self.window)

    def _stepped(self, state: State, alignment: Tensor) -> State:
        # The prior is a constant to the logits: it goes by the losses, which this step does not change.
        drawn = None if self.unit == "examples" else self.rates(state)
        gradient = logit_gradient(alignment, self._before_floor(state), self.entropy, self.floor, drawn)
        kept, step = STEPS[self.step].taken(state, gradient)
        return {**state, **kept, "logits": self.memory * state["logits"] - self.learning_rate * step}
