"""What of the cache a decode step reads: one method a file, a frozen config with functions on one layer's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion._lazy import lazily
from apportion._registry import Registry

if TYPE_CHECKING:
    from apportion.caches._cache import CacheMethod, Held, KvShape, Selection
    from apportion.caches.adamas import Adamas
    from apportion.caches.dense import Dense
    from apportion.caches.exact import Exact
    from apportion.caches.flexicache import Flexicache
    from apportion.caches.quest import Quest
    from apportion.caches.random import Random
    from apportion.caches.snapkv import Snapkv
    from apportion.caches.streaming import Streaming

CACHES: Registry[CacheMethod] = Registry(
    "cache",
    "apportion.caches._cache:CacheMethod",
    {
        "dense": "apportion.caches.dense:Dense",
        "streaming": "apportion.caches.streaming:Streaming",
        "flexicache": "apportion.caches.flexicache:Flexicache",
        "snapkv": "apportion.caches.snapkv:Snapkv",
        "quest": "apportion.caches.quest:Quest",
        "adamas": "apportion.caches.adamas:Adamas",
        "exact": "apportion.caches.exact:Exact",
        "random": "apportion.caches.random:Random",
    },
)

__all__ = [
    "CACHES",
    "Adamas",
    "CacheMethod",
    "Dense",
    "Exact",
    "Flexicache",
    "Held",
    "KvShape",
    "Quest",
    "Random",
    "Selection",
    "Snapkv",
    "Streaming",
]

__getattr__, __dir__ = lazily(__name__, __all__, "_cache", CACHES)
