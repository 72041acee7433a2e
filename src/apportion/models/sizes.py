"""The sizes in a model's config, held to what can exist before anything is built from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn

from apportion._errors import ApportionError

# By transformers' common names and, where a model type has a name of its own that it does not map to these, by that.
_SIZES = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("vocab_size", "max_position_embeddings", "d_ff", "ffn_dim", "ffn_hidden_size", "n_inner", "num_kv_heads"),
)
_LAYERS = ("num_hidden_layers", "num_decoder_layers")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

LARGEST_SIZE = 2**24
MOST_LAYERS = 512  # shapes alone take some milliseconds a layer; the deepest published models have under 130
MOST_EXPERTS = 4096
MOST_PARAMETERS = 2e12


def check_sizes(values: Mapping[str, Any], names: Mapping[str, str], where: str) -> None:
    """Refuse sizes, layers and experts that are no positive whole number, or beyond any model's.

    Args:
        values: Keys of a transformers config. Values that are no whole numbers are left to transformers.
        names: The model type's own names for the common ones, its ``attribute_map``.
        where: What stands before a key in a message, such as ``"model.config."``.

    Raises:
        ApportionError: One is out of range.
    """
    limits = {
        **dict.fromkeys(_SIZES, LARGEST_SIZE),
        **dict.fromkeys(_LAYERS, MOST_LAYERS),
        **dict.fromkeys(_EXPERTS, MOST_EXPERTS),
    }
    own = {names.get(common, common): limit for common, limit in limits.items()}
    for key, limit in own.items():
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or 0 < value <= limit:
            continue
        wanted = f"at most {limit:,}" if value > 0 else "at least 1"
        raise ApportionError(f"'{where}{key}' is {value}: must be {wanted}.")


def check_heads(values: Mapping[str, Any], names: Mapping[str, str], where: str) -> None:
    """Refuse key-value heads that do not divide the heads; arguments as for `check_sizes`, with every default filled in.

    Raises:
        ApportionError: As said.
    """
    many, few = (names.get(key, key) for key in ("num_attention_heads", "num_key_value_heads"))
    heads, shared = values.get(many), values.get(few)
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        raise ApportionError(
            f"'{where}{few}' is {shared}, which does not divide the {heads} of '{many}': set it to a divisor."
        )


def check_parameters(count: int, what: str) -> None:
    """Refuse a model of more parameters than any has.

    Raises:
        ApportionError: More than `MOST_PARAMETERS`.
    """
    if count > MOST_PARAMETERS:
        raise ApportionError(f"A model of {count:,} parameters follows from '{what}': lower its sizes.")


def machine_memory() -> int:
    """Return the bytes of main memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(model: nn.Module) -> None:
    """Refuse a model whose weights do not fit into main memory, where they are built or loaded first.

    Args:
        model: The model, or its shapes on the meta device.

    Raises:
        ApportionError: It is larger.
    """
    needed = sum(tensor.numel() * tensor.element_size() for tensor in chain(model.parameters(), model.buffers()))
    if needed > machine_memory():
        raise ApportionError(
            f"The weights alone of the model take {needed / 2**30:,.0f} GiB and this machine has "
            f"{machine_memory() / 2**30:,.0f}: take a smaller 'model'."
        )
