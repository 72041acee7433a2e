"""What a model can tell about data: one signal a file, each priced, charged and kept by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily

if TYPE_CHECKING:
    from apportion.signals._pool import Lexicon, Look, Pool, PoolBench, PoolSignal, Shown
    from apportion.signals._records import AnchorsAsked, Asking, Bench, Feedback, Moment, Outlook, Seen
    from apportion.signals._signal import ExampleSignal, Signal, TaskSignal, cost_of
    from apportion.signals.anchor_states import AnchorStates
    from apportion.signals.excess_losses import ExcessLosses
    from apportion.signals.in_run_alignment import InRunAlignment
    from apportion.signals.look_ahead import LookAhead
    from apportion.signals.losses import example_losses, task_losses
    from apportion.signals.pool_gradients import GradientProducts, ProjectedGradients
    from apportion.signals.pool_losses import PoolLosses
    from apportion.signals.pool_sentences import PoolSentences
    from apportion.signals.pool_states import PoolStates
    from apportion.signals.pool_terms import PoolTerms
    from apportion.signals.pool_texts import PoolTexts
    from apportion.signals.probed_gains import ProbedGains
    from apportion.signals.step_losses import StepLosses
    from apportion.signals.train_losses import TrainLosses
    from apportion.signals.validation_losses import ValidationLosses

_BASES = ("ExampleSignal", "Signal", "TaskSignal", "cost_of")
_RECORDS = ("AnchorsAsked", "Asking", "Bench", "Feedback", "Moment", "Outlook", "Seen")
_POOL = ("Lexicon", "Look", "Pool", "PoolBench", "PoolSignal", "Shown")
_HOME = {
    **dict.fromkeys(_POOL, "_pool"),
    **dict.fromkeys(_RECORDS, "_records"),
    **dict.fromkeys(_BASES, "_signal"),
    "AnchorStates": "anchor_states",
    "ExcessLosses": "excess_losses",
    "InRunAlignment": "in_run_alignment",
    "LookAhead": "look_ahead",
    "GradientProducts": "pool_gradients",
    "PoolLosses": "pool_losses",
    "PoolSentences": "pool_sentences",
    "PoolStates": "pool_states",
    "PoolTerms": "pool_terms",
    "PoolTexts": "pool_texts",
    "ProjectedGradients": "pool_gradients",
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
    "GradientProducts",
    "InRunAlignment",
    "Lexicon",
    "Look",
    "LookAhead",
    "Moment",
    "Outlook",
    "Pool",
    "PoolBench",
    "PoolLosses",
    "PoolSentences",
    "PoolSignal",
    "PoolStates",
    "PoolTerms",
    "PoolTexts",
    "ProbedGains",
    "ProjectedGradients",
    "Seen",
    "Shown",
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
