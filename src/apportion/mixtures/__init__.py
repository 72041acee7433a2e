"""How often to draw each task: one method a file, found by its name in a recipe or as an attribute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.mixtures._mixture import Feedback, LossGuided, Mixture, Outcome, TaskSizes, Trial
    from apportion.mixtures.adapt import Adapt
    from apportion.mixtures.bandit import Bandit
    from apportion.mixtures.doremi import Doremi
    from apportion.mixtures.fixed import Fixed
    from apportion.mixtures.loss import Loss
    from apportion.mixtures.probes import Probes
    from apportion.mixtures.progress import Progress
    from apportion.mixtures.proportional import Proportional
    from apportion.mixtures.regmix import RegMix
    from apportion.mixtures.temperature import Temperature
    from apportion.mixtures.uniform import Uniform
    from apportion.mixtures.upsample import Upsample

MIXTURES: Registry[Mixture] = Registry(
    "mixture",
    "apportion.mixtures._mixture:Mixture",
    {
        "uniform": "apportion.mixtures.uniform:Uniform",
        "upsample": "apportion.mixtures.upsample:Upsample",
        "proportional": "apportion.mixtures.proportional:Proportional",
        "temperature": "apportion.mixtures.temperature:Temperature",
        "fixed": "apportion.mixtures.fixed:Fixed",
        "loss": "apportion.mixtures.loss:Loss",
        "progress": "apportion.mixtures.progress:Progress",
        "probes": "apportion.mixtures.probes:Probes",
        "bandit": "apportion.mixtures.bandit:Bandit",
        "doremi": "apportion.mixtures.doremi:Doremi",
        "regmix": "apportion.mixtures.regmix:RegMix",
        "adapt": "apportion.mixtures.adapt:Adapt",
    },
)

__all__ = [
    "MIXTURES",
    "Adapt",
    "Bandit",
    "Doremi",
    "Feedback",
    "Fixed",
    "Loss",
    "LossGuided",
    "Mixture",
    "Outcome",
    "Probes",
    "Progress",
    "Proportional",
    "RegMix",
    "TaskSizes",
    "Temperature",
    "Trial",
    "Uniform",
    "Upsample",
]

__getattr__, __dir__ = lazily(__name__, __all__, "_mixture", MIXTURES)
