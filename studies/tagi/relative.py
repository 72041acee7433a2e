"""What answering with generated adapters costs beside reading the instruction with every input, term by term.

Arithmetic on a config's numbers: nothing is built or run. ``TagiPrices`` and torch's flop counter find the same
(``tests/studies/test_relative.py``).

Convention as in ``models.flops``: a multiply-add counts 2; attention counts the full square; embeddings, norms,
activations, softmax and rotary count nothing. Both models are priced by one teacher-forced pass over input and output.
Generating with a key-value cache makes the same products, but for the halves of the decoder's self-attention that a causal
mask hides, and for ``lm_head`` of a decoder-only model, which is then needed where something is written only, not over the
prompt.

    python -m studies.tagi.relative     prints the table; its last two lengths are the means of Natural Instructions' 71
                                        tasks in the shared data, characters / 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from transformers import T5Config

from apportion._errors import ApportionError, nearest
from apportion.models.tagi.adapting import check_base
from apportion.models.tagi.kind import Tagi

Terms = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """``instances`` of one task (n): tokens of its instruction (t), and of each one's input (i) and output (o).

    What an encoder reads ends with a token of its own, which counts.
    """

    instruction: int
    input: int
    output: int
    instances: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ApportionError(f"A setting's {name} is {value}: it must be at least 1.")


def tagi_flops(config: Any, spec: Tagi, setting: Setting) -> Terms:  # noqa: ANN401
    """Price answering all instances of one task with a `TagiModel` model.

    Once a task: ``instruction``, its reading by the base's encoder (a decoder-only model's layers), ``generator``, what
    writes the adapter, and fusion's keys and values. For each instance: ``encoder``, ``decoder`` and ``lm_head`` of the
    base over input and output without the instruction, ``adapters``, their low-rank products, ``fusion``, attention from
    the input to the instruction, and ``memory``, what the decoder's cross-attention does more, adapters included, because
    the instruction's states stand before the input's. A decoder-only model has neither ``encoder`` nor ``memory``.

    Args:
        config: The base model's, of transformers.
        spec: The recipe's ``kind`` block.
        setting: Lengths and number of instances.

    Raises:
        ApportionError: A base or option that `TagiModel` does not take, or modules that the base does not have.
    """
    check_base(config, spec)
    shape, n, t = _shape_of(config), setting.instances, setting.instruction
    slots = [] if spec.head == "none" else _slots(shape, spec.modules_of(config))
    alone = _answering(config, setting.input, setting.output, setting.input)
    base = _base_terms(shape, alone)
    terms = {
        "instruction": sum(_base_terms(shape, {shape.reader: t}).values()),
        "generator": _generator(config, spec, slots) if slots else 0.0,
        **{term: n * cost for term, cost in base.items()},
        "adapters": n * _adapters(slots, alone, spec.r),
        "fusion": _fusion(config, shape, setting, alone[shape.reader]) if spec.fusion else 0.0,
    }
    if config.is_encoder_decoder:
        seen = _answering(config, setting.input, setting.output, t + setting.input) if spec.memory else alone
        more = sum(_base_terms(shape, seen).values()) - sum(base.values())
        terms["memory"] = n * (more + _adapters(slots, seen, spec.r)) - terms["adapters"]
    return terms


def standard_flops(config: Any, setting: Setting) -> Terms:  # noqa: ANN401
    """Price answering all instances with the base model alone, which reads the instruction with each; terms as above.

    Raises:
        ApportionError: A base that `TagiModel` does not take.
    """
    check_base(config, Tagi.model_validate({}))
    long = setting.instruction + setting.input
    terms = _base_terms(_shape_of(config), _answering(config, long, setting.output, long))
    return {term: setting.instances * cost for term, cost in terms.items()}


def relative_flops(config: Any, spec: Tagi, setting: Setting) -> float:  # noqa: ANN401
    """Return `tagi_flops` over `standard_flops`, all terms."""
    return sum(tagi_flops(config, spec, setting).values()) / sum(standard_flops(config, setting).values())


def paper_ratio(setting: Setting) -> float:
    """Return the paper's own estimate, N (t + n i) / (N n (t + i)), which counts neither outputs nor what TAGI adds.

    Source: Liao et al. 2024 (arXiv 2406.12382), appendix B.5; at t = 1.6 i and n = 100 its 0.39.
    """
    t, i, n = setting.instruction, setting.input, setting.instances
    return (t + n * i) / (n * (t + i))


class _Linear(NamedTuple):
    """Linear layers of one shape and name, one in each of ``layers``; ``place`` says which tokens pass through."""

    name: str
    d_in: int
    d_out: int
    layers: int
    place: str


class _Attention(NamedTuple):
    """Both products of attention, ``width`` = heads * head size, from the tokens of one place to those of another."""

    width: int
    layers: int
    queries: str
    keys: str


class _Shape(NamedTuple):
    """A base model's products; ``reader`` is the stack that reads instructions and inputs, of ``reading`` layers."""

    linears: list[_Linear]
    attentions: list[_Attention]
    reader: str
    reading: int


# "crossed" are the encoder's states as the decoder's cross-attention sees them, "lm_head" where logits are made.
_TERM = {"encoder": "encoder", "decoder": "decoder", "crossed": "decoder", "lm_head": "lm_head"}


def _shape_of(config: Any) -> _Shape:  # noqa: ANN401
    return _t5(config) if config.is_encoder_decoder else _decoder_only(config)


def _t5(config: Any) -> _Shape:  # noqa: ANN401
    d, inner, wide = config.d_model, config.num_heads * config.d_kv, config.d_ff
    ways_in = ("wi_0", "wi_1") if config.is_gated_act else ("wi",)
    depths = {"encoder": config.num_layers, "decoder": config.num_decoder_layers}
    linears = [_Linear("lm_head", d, config.vocab_size, 1, "lm_head")]
    for stack, layers in depths.items():
        linears += [_Linear(name, d, inner, layers, stack) for name in ("q", "k", "v")]
        linears += [_Linear("o", inner, d, layers, stack), _Linear("wo", wide, d, layers, stack)]
        linears += [_Linear(name, d, wide, layers, stack) for name in ways_in]
    layers = depths["decoder"]
    linears += [_Linear("q", d, inner, layers, "decoder"), _Linear("o", inner, d, layers, "decoder")]
    linears += [_Linear(name, d, inner, layers, "crossed") for name in ("k", "v")]
    attentions = [_Attention(inner, layers, stack, stack) for stack, layers in depths.items()]
    return _Shape(linears, [*attentions, _Attention(inner, layers, "decoder", "crossed")], "encoder", depths["encoder"])


def _decoder_only(config: Any) -> _Shape:  # noqa: ANN401
    d, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    size = getattr(config, "head_dim", None) or d // config.num_attention_heads
    inner, shared = config.num_attention_heads * size, config.num_key_value_heads * size
    sizes = {"q_proj": (d, inner), "k_proj": (d, shared), "v_proj": (d, shared), "o_proj": (inner, d)}
    sizes |= {"gate_proj": (d, wide), "up_proj": (d, wide), "down_proj": (wide, d)}
    linears = [_Linear(name, *ends, layers, "decoder") for name, ends in sizes.items()]
    linears.append(_Linear("lm_head", d, config.vocab_size, 1, "lm_head"))
    return _Shape(linears, [_Attention(inner, layers, "decoder", "decoder")], "decoder", layers)


def _answering(config: Any, read: int, written: int, crossed: int) -> dict[str, int]:  # noqa: ANN401
    """Return the tokens at each place in a pass over one instance."""
    if config.is_encoder_decoder:
        return {"encoder": read, "decoder": written, "crossed": crossed, "lm_head": written}
    return {"decoder": read + written, "lm_head": read + written}


def _base_terms(shape: _Shape, tokens: Mapping[str, int]) -> Terms:
    """Price the base model's products over these many tokens at each place; at others there are none."""
    terms = dict.fromkeys((_TERM[place] for place in tokens), 0.0)
    for linear in shape.linears:
        if linear.place in tokens:
            terms[_TERM[linear.place]] += 2.0 * linear.d_in * linear.d_out * linear.layers * tokens[linear.place]
    for attention in shape.attentions:
        if attention.queries in tokens:
            pairs = tokens[attention.queries] * tokens[attention.keys]
            terms[_TERM[attention.queries]] += 4.0 * attention.width * attention.layers * pairs
    return terms


def _slots(shape: _Shape, modules: list[str]) -> list[_Linear]:
    known = dict.fromkeys(linear.name for linear in shape.linears)
    for module in modules:
        if module not in known:
            raise ApportionError(f"'kind.modules' names '{module}', no layer of the model{nearest(module, known)}.")
    return [linear for linear in shape.linears if linear.name in modules]


def _adapters(slots: list[_Linear], tokens: Mapping[str, int], rank: int) -> float:
    return sum(2.0 * rank * (slot.d_in + slot.d_out) * slot.layers * tokens[slot.place] for slot in slots)


def _generator(config: Any, spec: Tagi, slots: list[_Linear]) -> float:  # noqa: ANN401
    """Price one adapter: the code from the pooled instruction, then what ``models.tagi.heads`` does for each slot."""
    code, hidden, rank = spec.code, spec.hidden, spec.r
    # Before the output layers, of which a diagonal head has the r scales alone.
    inner = {
        "shared_index": (code + 1) * hidden,
        "per_layer": (code + 1) * hidden,
        "module_depth": (code + 2 * max(code // 2, 1)) * hidden + 8 * hidden * hidden,
        "diagonal": 2 * code * hidden,
    }[spec.head]
    products = config.hidden_size * code
    for slot in slots:
        outer = rank if spec.head == "diagonal" else rank * (slot.d_in + slot.d_out)
        products += slot.layers * (inner + hidden * outer)
    return 2.0 * products


def _fusion(config: Any, shape: _Shape, setting: Setting, read: int) -> float:  # noqa: ANN401
    """Price keys and values once, queries, both products of attention and the output for every token ``read``."""
    d, t, n = config.hidden_size, setting.instruction, setting.instances
    return float(shape.reading * (4 * d * d * t + n * read * (4 * d * d + 4 * d * t)))


LENGTHS = [(320, 200, 20, n) for n in (1, 10, 100)] + [(320, 200, 128, 100), (81, 68, 15, 100), (266, 68, 15, 100)]


def print_flops() -> None:
    """Relative FLOPs in answering, as a table in Markdown."""
    gated = {"d_kv": 64, "vocab_size": 32128, "feed_forward_proj": "gated-gelu"}
    base = T5Config(d_model=768, d_ff=2048, num_heads=12, num_layers=12, num_decoder_layers=12, **gated)
    large = T5Config(d_model=2048, d_ff=5120, num_heads=32, num_layers=24, num_decoder_layers=24, **gated)
    ways = [{}, {"fusion": True}, {"memory": True}, {"fusion": True, "memory": True}]
    print("| t | i | o | n | the paper's formula | base | adapter | + fusion | + memory | + both |")
    print("| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for lengths in LENGTHS:
        setting = Setting(*lengths)
        for name, config in (("T5-base", base), ("T5-XL", large)):
            specs = [Tagi.model_validate({"r": 32, **way}) for way in ways]
            found = [relative_flops(config, spec, setting) for spec in specs]
            cells = [*lengths, f"{paper_ratio(setting):.2f}", name, *(f"{ratio:.2f}" for ratio in found)]
            print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    print_flops()
