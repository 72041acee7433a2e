"""What a model can tell about data: one signal a file, each priced, charged and kept by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.signals._records import AnchorsAsked, Asking, Bench, Feedback, Moment, Outlook, Seen
    from apportion.signals._signal import ExampleSignal, Signal, TaskSignal, cost_of
    from apportion.signals.anchor_states import AnchorStates
    from apportion.signals.excess_losses import ExcessLosses
    from apportion.signals.in_run_alignment import InRunAlignment
    from apportion.signals.look_ahead import LookAhead
    from apportion.signals.losses import example_losses, task_losses
    from apportion.signals.pool_texts import PoolTexts
    from apportion.signals.probed_gains import ProbedGains
    from apportion.signals.step_losses import StepLosses
    from apportion.signals.train_losses import TrainLosses
    from apportion.signals.validation_losses import ValidationLosses

_BASES = ("ExampleSignal", "Signal", "TaskSignal", "cost_of")
_RECORDS = ("AnchorsAsked", "Asking", "Bench", "Feedback", "Moment", "Outlook", "Seen")
_HOME = {
    **dict.fromkeys(_RECORDS, "_records"),
    **dict.fromkeys(_BASES, "_signal"),
    "AnchorStates": "anchor_states",
    "ExcessLosses": "excess_losses",
    "InRunAlignment": "in_run_alignment",
    "LookAhead": "look_ahead",
    "PoolTexts": "pool_texts",
    "ProbedGains": "probed_gains",
    "StepLosses": "step_losses",
    "TrainLosses": "train_losses",
    "ValidationLosses": "validation_losses",
    "example_losses": "losses",
    "task_losses": "losses",
}

__all__ = [
    "AnchorStates",
    "AnchorsAsked",
    "Asking",
    "Bench",
    "ExampleSignal",
    "ExcessLosses",
    "Feedback",
    "InRunAlignment",
    "LookAhead",
    "Moment",
    "Outlook",
    "PoolTexts",
    "ProbedGains",
    "Seen",
    "Signal",
    "StepLosses",
    "TaskSignal",
    "TrainLosses",
    "ValidationLosses",
    "cost_of",
    "example_losses",
    "task_losses",
]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME)
