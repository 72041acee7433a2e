"""Pieces of text that are one token each in a tokenizer that is trained."""

import hashlib

import pytest
from transformers import AutoTokenizer

from apportion._config import validate
from apportion._errors import ApportionError
from apportion.models.loading import load_tokenizer
from apportion.models.specs import ModelSpec, TokenizerSpec
from apportion.tasks import TasksSpec, load_tokenizer_trained, train_tokenizer
from apportion.tasks.tokenizers import _TRAINING

TAGS = ["<think>", "</think>", "Wait"]
SIZES = {"character": 64, "bpe": 300}


@pytest.fixture(scope="module")
def spec():
    return TasksSpec(source="scratchpad", examples=40, correct=0.5)


@pytest.fixture(scope="module")
def tasks(spec):
    return spec.load()


@pytest.mark.parametrize("kind", SIZES)
def test_each_is_one_token_wherever_it_stands_and_decoding_keeps_it(kind, tasks, tmp_path):
    trained = train_tokenizer(tasks, kind, SIZES[kind], tokens=TAGS)
    trained.save_pretrained(tmp_path)
    for tokenizer in (trained, AutoTokenizer.from_pretrained(tmp_path)):
        ids = [tokenizer(tag)["input_ids"] for tag in TAGS]
        assert all(len(one) == 1 for one in ids) and len({one[0] for one in ids}) == 3
        assert not {one[0] for one in ids} & set(tokenizer.all_special_ids)
        text = "1+1?\n<think>1+1=3;Wait1+1=2;</think>2"
        encoded = tokenizer(text)["input_ids"]
        assert [encoded.count(one[0]) for one in ids] == [1, 1, 1]
        assert tokenizer.decode(encoded, skip_special_tokens=True) == text


def test_they_count_in_the_vocabulary_and_their_letters_do_not(tasks, playground):
    with_tags, without = (train_tokenizer(tasks, "character", 64, tokens=tokens) for tokens in (TAGS, ()))
    assert len(with_tags) == len(without) - len(set("".join(TAGS))) + 3
    assert train_tokenizer(tasks, "character", len(with_tags), tokens=TAGS).get_vocab() == with_tags.get_vocab()
    with pytest.raises(ApportionError, match=rf"at least {len(with_tags)}, not {len(with_tags) - 1}"):
        train_tokenizer(tasks, "character", len(with_tags) - 1, tokens=TAGS)
    assert len(train_tokenizer(playground, "bpe", 300, tokens=TAGS)) == 300
    with pytest.raises(ApportionError, match=r"at least 262, not 260"):
        train_tokenizer(tasks, "bpe", 260, tokens=TAGS)


def test_the_longer_of_two_counts(tasks):
    tokenizer = train_tokenizer(tasks, "character", 64, tokens=["<think", "<think>"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("<think><think")["input_ids"]) == ["<think>", "<think"]


def test_a_tokenizer_without_them_is_what_it_was(spec, cache):
    plain = load_tokenizer_trained(spec, "character", 64)
    key = hashlib.blake2b(repr((_TRAINING, spec.fingerprint(), "character", 64)).encode(), digest_size=16).hexdigest()
    assert (cache / f"tokenizer-{key}.json").is_file()
    assert plain.backend_tokenizer.to_str() == train_tokenizer(spec.load(), "character", 64).backend_tokenizer.to_str()
    load_tokenizer_trained(spec, "character", 64, tokens=TAGS)
    load_tokenizer_trained(spec, "character", 64, tokens=TAGS[:2])
    assert len(list(cache.glob("tokenizer-*.json"))) == 3
    block = {"train": "character", "vocab_size": 64}
    assert TokenizerSpec(**block).model_dump(exclude_none=True) == block


def test_a_recipes_block_asks_for_them(spec):
    block = {"config": {"model_type": "llama"}, "tokenizer": {"train": "character", "vocab_size": 64, "tokens": TAGS}}
    tokenizer = load_tokenizer(validate(ModelSpec, block, "model"), spec)
    assert len(tokenizer("<think>")["input_ids"]) == 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [([""], "not empty, unlike ''"), ([" a"], "white space"), (["a", "a"], "there twice"), ("abc", "must be a list"),
     ([1], "must be text")],
)  # fmt: skip
def test_bad_tokens(tokens, said):
    with pytest.raises(ApportionError, match=said):
        validate(TokenizerSpec, {"train": "bpe", "tokens": tokens}, "model.tokenizer")


def test_a_special_token_is_none_of_them(tasks):
    with pytest.raises(ApportionError, match="'<eos>' is a special token"):
        train_tokenizer(tasks, "bpe", 300, tokens=["<eos>"])
