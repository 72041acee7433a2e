"""What a model can tell about data: one signal a file, each priced, charged and kept by itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.signals._records import AnchorsAsked, Asking, Bench, Feedback, Moment, Outlook, Seen
    from apportion.signals._signal import ExampleSignal, Signal, TaskSignal, cost_of
    from apportion.signals.anchor_states import AnchorStates
    from apportion.signals.anchor_texts import AnchorTexts
    from apportion.signals.in_run_alignment import InRunAlignment
    from apportion.signals.look_ahead import LookAhead
    from apportion.signals.losses import example_losses, task_losses
    from apportion.signals.step_losses import StepLosses
    from apportion.signals.validation_losses import ValidationLosses

_RECORDS = ("AnchorsAsked", "Asking", "Bench", "Feedback", "Moment", "Outlook", "Seen")
_HOME = {
    **dict.fromkeys(_RECORDS, "_records"),
    "AnchorStates": "anchor_states",
    "AnchorTexts": "anchor_texts",
    "InRunAlignment": "in_run_alignment",
    "LookAhead": "look_ahead",
    "StepLosses": "step_losses",
    "ValidationLosses": "validation_losses",
    "example_losses": "losses",
    "task_losses": "losses",
}

__all__ = [
    "AnchorStates",
    "AnchorTexts",
    "AnchorsAsked",
    "Asking",
    "Bench",
    "ExampleSignal",
    "Feedback",
    "InRunAlignment",
    "LookAhead",
    "Moment",
    "Outlook",
    "Seen",
    "Signal",
    "StepLosses",
    "TaskSignal",
    "ValidationLosses",
    "cost_of",
    "example_losses",
    "task_losses",
]


def __getattr__(name: str) -> object:
    # Signals work on tensors; naming the folder must not load torch.
    if name not in __all__:
        raise AttributeError(f"module 'apportion.signals' has no attribute '{name}'")
    return getattr(importlib.import_module(f"apportion.signals.{_HOME.get(name, '_signal')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
