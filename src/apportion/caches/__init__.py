"""What of the cache a decode step reads: one method a file, a frozen config with functions on one layer's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.caches._cache import CacheMethod, Held, KvShape, Selection
    from apportion.caches.dense import Dense
    from apportion.caches.streaming import Streaming

CACHES: Registry[CacheMethod] = Registry(
    "cache",
    "apportion.caches._cache:CacheMethod",
    {
        "dense": "apportion.caches.dense:Dense",
        "streaming": "apportion.caches.streaming:Streaming",
    },
)

__all__ = ["CACHES", "CacheMethod", "Dense", "Held", "KvShape", "Selection", "Streaming"]

__getattr__, __dir__ = lazily(__name__, __all__, "_cache", CACHES)
