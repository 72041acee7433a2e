import numpy as np
import pytest
import torch
from studies.tagi.relative import Setting, paper_ratio, relative_flops, standard_flops, tagi_flops
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, T5Config

from apportion._errors import ApportionError
from apportion.budget.prices import Work
from apportion.models.tagi.adapting import TagiModel
from apportion.models.tagi.kind import Tagi
from apportion.models.tagi.prices import TagiPrices
from apportion.tasks.batches import Batch, collate
from tests.tiny import tiny_config

HEADS = ("shared_index", "per_layer", "module_depth", "diagonal")
SETTINGS = (Setting(9, 5, 3, 4), Setting(24, 16, 8, 3), Setting(3, 30, 2, 2))
T5 = {"d_model": 32, "d_kv": 6, "num_heads": 4, "d_ff": 72, "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 61}


def config_of(kind):
    if kind in ("llama", "qwen3"):
        extra = {"head_dim": 12} if kind == "qwen3" else {}
        config = tiny_config(kind, **extra)
    else:
        feed_forward_proj = "gated-gelu" if kind == "t5_gated" else "relu"
        config = T5Config(**T5, feed_forward_proj=feed_forward_proj, decoder_start_token_id=0)
    config._attn_implementation = "eager"
    return config


def base_of(config):
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config, attn_implementation="eager")


def batch_of(context, output, rows) -> Batch:
    ids = np.full(context + output, 5)
    labels = np.where(np.arange(len(ids)) < context, -100, ids)
    batch = collate([(ids, labels)] * rows, [0] * rows, 0)
    keep = {"input_ids": batch.input_ids[:, : len(ids)], "attention_mask": batch.attention_mask[:, : len(ids)]}
    # Padding is not priced, and torch's counter would see it.
    columns = batch.positions % batch.input_ids.shape[1]
    return Batch(**{**vars(batch), **keep, "positions": batch.examples * len(ids) + columns})


def counted(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def tagi_of(config, spec, setting):
    return TagiModel(base_of(config), spec, [torch.full((setting.instruction,), 7)]).eval()


OPTIONS = [
    ("t5_gated", {"head": head, "fusion": head == "per_layer", "memory": head == "module_depth"}) for head in HEADS
]
OPTIONS += [("t5_relu", {"fusion": True, "memory": True, "modules": ["q", "k", "v", "o", "wi", "wo"]})]
OPTIONS += [("t5_gated", {"memory": True, "modules": ["q"], "r": 3}), ("t5_gated", {"modules": ["wo", "wi_1"]})]
OPTIONS += [("llama", {"head": head, "fusion": head == "diagonal"}) for head in HEADS]
OPTIONS += [("qwen3", {"fusion": True, "code": 7, "hidden": 11, "modules": ["k_proj", "o_proj", "down_proj"]})]


def ends(kind):
    """How many of an input's tokens the encoder's reading adds to the example's own: the end token."""
    return int("t5" in kind)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_the_terms_add_up_to_what_torchs_flop_counter_sees(kind, options, setting):
    config, spec = config_of(kind), Tagi(**options)
    # The counter's hooks fail on views of parameters that require gradients.
    model = tagi_of(config, spec, setting).requires_grad_(False)
    batch = batch_of(setting.input - ends(kind), setting.output, setting.instances)
    found = counted(lambda: model(batch))
    # Rotary embeddings, which we do not price, are made by a product.
    assert sum(tagi_flops(config, spec, setting).values()) == pytest.approx(found, rel=0 if "t5" in kind else 5e-3)


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_the_terms_add_up_to_the_prices_that_the_ledger_is_charged(kind, options):
    config, spec, setting = config_of(kind), Tagi(**options), SETTINGS[1]
    prices = TagiPrices.of(tagi_of(config, spec, setting))
    examples = ((0, setting.input - ends(kind), setting.output),) * setting.instances
    charged = prices.ahead().flops + prices.forward(Work(0, 0, examples))
    assert sum(tagi_flops(config, spec, setting).values()) == pytest.approx(charged, rel=1e-6 if "t5" in kind else 5e-3)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["t5_gated", "t5_relu", "llama", "qwen3"])
def test_the_standard_models_terms_add_up_to_what_torchs_flop_counter_sees(kind, setting):
    config = config_of(kind)
    base, rows = base_of(config).eval(), setting.instances
    read, written = setting.instruction + setting.input, setting.output

    def ids(length):
        return torch.ones(rows, length, dtype=torch.long)

    if config.is_encoder_decoder:
        found = counted(lambda: base(input_ids=ids(read), decoder_input_ids=ids(written), use_cache=False))
    else:
        found = counted(lambda: base(input_ids=ids(read + written), use_cache=False))
    assert sum(standard_flops(config, setting).values()) == pytest.approx(found, rel=0 if "t5" in kind else 5e-3)


def v1_1(**sizes):
    return T5Config(d_kv=64, vocab_size=32128, feed_forward_proj="gated-gelu", **sizes)


BASE = v1_1(d_model=768, d_ff=2048, num_heads=12, num_layers=12, num_decoder_layers=12)
XL = v1_1(d_model=2048, d_ff=5120, num_heads=32, num_layers=24, num_decoder_layers=24)
PAPERS = Setting(320, 200, 20, 100)
FUSED = Tagi(r=32, fusion=True, memory=True)
ADAPTER = Tagi(r=32)


def test_the_papers_formula_gives_its_figure():
    assert paper_ratio(PAPERS) == pytest.approx(0.39, abs=0.002)
    assert paper_ratio(Setting(10, 10, 1, 1)) == 1


@pytest.mark.parametrize(
    ("config", "spec", "setting", "expected"),
    [
        (BASE, ADAPTER, PAPERS, 0.402),
        (BASE, FUSED, PAPERS, 0.552),
        (XL, ADAPTER, PAPERS, 0.407),
        (XL, FUSED, PAPERS, 0.556),
        (BASE, FUSED, Setting(320, 200, 128, 100), 0.644),
        (BASE, FUSED, Setting(320, 200, 20, 1), 1.118),
    ],
    ids=str,
)
def test_relative_flops_at_the_papers_lengths(config, spec, setting, expected):
    assert relative_flops(config, spec, setting) == pytest.approx(expected, abs=5e-4)


def test_what_is_done_once_a_task_does_not_grow_with_its_instances():
    ones, many = (tagi_flops(BASE, ADAPTER, Setting(320, 200, 20, n)) for n in (1, 100))
    assert {term: many[term] / ones[term] for term in ones if ones[term]} == pytest.approx(
        {"instruction": 1, "generator": 1, "encoder": 100, "decoder": 100, "lm_head": 100, "adapters": 100}
    )
    assert ones["fusion"] == ones["memory"] == 0


def test_without_what_the_paper_leaves_out_the_ratio_is_nearly_its():
    """Its formula is the encoder's share alone, but for attention's pairs: at short texts in a wide model."""
    short = Setting(32, 20, 1, 100)
    ours, standard = tagi_flops(XL, ADAPTER, short), standard_flops(XL, short)
    ratio = (ours["instruction"] + ours["encoder"]) / standard["encoder"]
    assert ratio == pytest.approx(paper_ratio(short), rel=0.01)


def test_each_option_changes_its_own_terms_alone():
    plain = tagi_flops(BASE, ADAPTER, PAPERS)
    for option, terms in (("fusion", {"fusion"}), ("memory", {"memory"}), ("head", {"generator"})):
        other = Tagi(r=32, **{option: "diagonal" if option == "head" else True})
        changed = tagi_flops(BASE, other, PAPERS)
        assert {term for term in plain if plain[term] != changed[term]} == terms


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Setting(320, 200, 20, 0), "A setting's instances is 0: it must be at least 1"),
        (lambda: tagi_flops(BASE, Tagi(modules=["qq"]), PAPERS), "'kind.modules' names 'qq'.*'q'"),
        (
            lambda: tagi_flops(tiny_config("gemma3_text"), ADAPTER, PAPERS),
            "families t5, llama, qwen3, not 'gemma3_text'",
        ),
        (lambda: tagi_flops(tiny_config("llama"), FUSED, PAPERS), "'kind.memory' is for encoder-decoder models"),
    ],
    ids=["no_instances", "unknown_module", "unsupported_base", "memory_without_encoder"],
)
def test_bad_input_ends_in_a_sentence(make, said):
    with pytest.raises(ApportionError, match=said):
        make()


def test_an_unsupported_base_has_no_standard_price_either():
    with pytest.raises(ApportionError, match="families"):
        standard_flops(tiny_config("gemma3_text"), PAPERS)
