"""A transformers model under a budget: its cache, and its attention, for as long as a block lasts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from apportion._errors import ApportionError
from apportion.budget.inference import KvLimit
from apportion.caches._cache import CacheMethod, KvShape
from apportion.decoding.attend import NAME
from apportion.decoding.store import Layer
from apportion.decoding.watch import Watch


class BudgetedCache(DynamicCache):
    """A cache for ``model.generate(past_key_values=...)`` whose full-attention layers are read under a budget.

    Sliding layers stay as they are: their window is a budget of their own.

    Attributes:
        watch: What was read since it was last taken.
    """

    def __init__(self, config: Any, method: CacheMethod, kv: KvLimit | None) -> None:  # noqa: ANN401
        super().__init__(config=config)
        self.shape, self.method, self.watch, self._kv = shape_of(config), method, Watch(), kv
        plain: list[Any] = self.layers
        self.layers: list[Any] = [
            Layer(method, index, self.shape, self.budget, self.watch) if type(layer) is DynamicLayer else layer
            for index, layer in enumerate(plain)
        ]

    def budget(self, seen: int) -> int:
        """Return the tokens that a decode step may read a KV head, of so many that are cached."""
        return seen if self._kv is None else max(self._kv.tokens(seen, self.method.page_size), 1)

    @property
    def budgeted(self) -> list[Layer]:
        """The layers under the budget."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    @property
    def resident(self) -> int:
        """Bytes on the device: keys, values and what methods keep beside them."""
        return self.side + sum(
            layer.nbytes if isinstance(layer, Layer) else _plain_bytes(layer) for layer in self.layers
        )

    @property
    def host(self) -> int:
        """Bytes that are kept elsewhere than on the device."""
        return sum(layer.host_bytes for layer in self.budgeted)

    @property
    def side(self) -> int:
        """Bytes that methods keep beside keys and values."""
        return sum(layer.side_bytes for layer in self.budgeted)


def _plain_bytes(layer: Any) -> int:  # noqa: ANN401
    return layer.keys.nbytes + layer.values.nbytes if layer.is_initialized else 0


def shape_of(config: Any) -> KvShape:  # noqa: ANN401 - a transformers config
    """Return the sizes of a model's attention."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    dtype = getattr(text, "dtype", None)
    return KvShape(
        layers=sum(kind == "full_attention" for kind in kinds),
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head=head,
        itemsize=getattr(dtype, "itemsize", 4),
    )


def cache_argument(model: nn.Module) -> str:
    """Return what a model calls its cache: ``cache`` since transformers 5.24, ``past_key_values`` before."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def budgeted_cache(config: Any, method: CacheMethod, kv: str | int | KvLimit | None) -> BudgetedCache:  # noqa: ANN401
    """Return an empty cache for a model of this transformers config; arguments and errors are `kv_budget`'s."""
    try:
        limit = None if kv is None else KvLimit.parse(kv)
    except ValueError as error:
        raise ApportionError(f"'kv' is {kv!r}: {error}.") from None
    if limit is not None and limit.unit == "pages" and method.page_size is None:
        raise method.refusal("has no pages: give the budget in tokens")
    if limit is not None and limit.unit == "%" and method.places:
        raise method.refusal("keeps as many pages on the device from the prompt on: give the budget in tokens or pages")
    cache = BudgetedCache(config, method, limit)
    if limit is not None and cache.budgeted and all(layer.whole for layer in cache.budgeted):
        raise method.refusal(
            f"reads the first {method.dense_layers} layers whole, and this model has no other: set 'dense_layers' to less"
        )
    if limit is not None and limit.unit != "%":
        method.check(cache.shape, limit.tokens(1, method.page_size))
    return cache


@contextmanager
def kv_budget(model: nn.Module, method: CacheMethod, kv: str | int | KvLimit | None = None) -> Iterator[BudgetedCache]:
    """Let a model's decode steps read no more of its cache than a budget, within the block.

    Args:
        model: A transformers causal language model.
        method: How its cache is read, such as ``caches.Adamas()``.
        kv: Cached tokens a decode step and KV head: ``256``, ``"16 pages"`` or ``"25%"``; all where None.

    Yields:
        The cache of one batch of requests: ``model.generate(**inputs, cache=cache)``, before transformers 5.24
        ``past_key_values=cache``.

    Raises:
        ApportionError: No budget, or a model or a budget that the method cannot work with.
    """
    owner: Any = model
    cache = budgeted_cache(owner.config, method, kv)
    before = owner.config._attn_implementation
    owner.set_attn_implementation(NAME)
    try:
        yield cache
    finally:
        owner.set_attn_implementation(before)
