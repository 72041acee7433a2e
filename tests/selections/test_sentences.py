"""Embeddings by a sentence-transformers model, made here from a config: what is compared, what it costs, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from apportion import ApportionError
from apportion import selections as family
from tests.references import selections as reference
from tests.selections.pools import VOCAB, bench, collection, pool_pairs, scores, target_pairs
from tests.tiny import tiny_model


def text(ids):
    return " ".join(f"w{i}" for i in ids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model of sentences with one word for each of the pools' tokens."""
    place = tmp_path_factory.mktemp("sentences")
    words = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i + 2 for i in range(VOCAB)}}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(place / "bert")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=40, **shape)).save_pretrained(place / "bert")
    transformer = Transformer(str(place / "bert"))
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(place / "whole"))
    return str(place / "whole")


@pytest.fixture
def asked():
    return replace(bench(collection(), tiny_model("llama").eval()), decode=text)


def test_scores_are_the_means_of_the_cosines_of_single_pairs(folder, asked):
    found = scores(family.Embedding(model=folder), asked, None)
    model = SentenceTransformer(folder, device="cpu")

    def phi(ids):
        return torch.from_numpy(model.encode([text(ids)], normalize_embeddings=True, show_progress_bar=False)[0])

    anchors = [[phi(ids) for ids, _ in pairs] for pairs in target_pairs(asked)]
    expected = [[reference.mean_cosine(phi(ids), of) for of in anchors] for ids, _ in pool_pairs(asked)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_it_costs_twice_its_own_parameters_for_each_of_its_own_tokens(folder, asked):
    method = family.Embedding(model=folder)
    (signal,) = method.needs()
    price = signal.attach(asked).price()
    scores(method, asked, None)
    spent = asked.ledger.spent("select")
    assert (spent.supervised, spent.processed) == (price.supervised, price.processed)
    assert spent.flops == pytest.approx(price.flops, rel=0.1)
    model = SentenceTransformer(folder, device="cpu")
    looked_up = sum(
        p.numel() for name, p in model.named_parameters() if "embeddings." in name and "LayerNorm" not in name
    )
    rest = sum(p.numel() for p in model.parameters()) - looked_up
    tokens = sum(len(ids) for ids, _ in pool_pairs(asked)) + sum(
        len(ids) for pairs in target_pairs(asked) for ids, _ in pairs
    )
    assert spent.flops == 2 * rest * tokens


def test_what_does_not_load_is_said_by_its_key(asked, tmp_path):
    for place, said in ((tmp_path / "nowhere", "There is no folder"), (tmp_path, "which does not load")):
        (signal,) = family.Embedding(model=str(place)).needs()
        with pytest.raises(ApportionError, match=rf"{said}.*|'selection.model'.*{said}"):
            signal.attach(asked).price()
    assert asked.ledger.spent("select").flops == 0
