"""How a model is built, priced, prepared and saved: one kind a file or folder, found by its name in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.models._kind import Asked, Child, ModelKind
    from apportion.models.causal import Causal
    from apportion.models.flops import ModelFlops
    from apportion.models.loading import build_model
    from apportion.models.output import Output, read
    from apportion.models.tagi.kind import Tagi

KINDS: Registry[ModelKind] = Registry(
    "kind",
    "apportion.models._kind:ModelKind",
    {
        "causal": "apportion.models.causal:Causal",
        "tagi": "apportion.models.tagi.kind:Tagi",
    },
)

_HOME = {
    "Asked": "_kind",
    "Child": "_kind",
    "ModelFlops": "flops",
    "ModelKind": "_kind",
    "Output": "output",
    "build_model": "loading",
    "read": "output",
}

__all__ = ["KINDS", "Asked", "Causal", "Child", "ModelFlops", "ModelKind", "Output", "Tagi", "build_model", "read"]

__getattr__, __dir__ = lazily(__name__, __all__, _HOME, KINDS)
