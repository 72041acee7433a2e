import json
import os
import subprocess
import sys

import pytest
from tokenizers import pre_tokenizers

from apportion._errors import ApportionError
from apportion.tasks import TasksSpec, encode, load_encoded, load_tokenizer_trained, train_tokenizer
from apportion.tasks.sources.files import RowFiles
from apportion.tasks.tokenizers import _bounded, _texts


def plain(encoded):
    """Copy everything out of the mapped file, so that the file may be harmed."""
    parts = {
        f"{task.name}/{split}": [
            (part.ids[i], int(part.supervised[i]), int(part.processed[i]), *(x.tolist() for x in part.example(i)))
            for i in range(len(part))
        ]
        for task in encoded
        for split, part in (("train", task.train), ("validation", task.validation), ("test", task.test))
    }
    return encoded.names, encoded.findings, encoded.fingerprint, parts


@pytest.fixture
def spec(jsonl, pairs):
    return TasksSpec(path=str(jsonl([*pairs, pairs[0], {"prompt": "x", "completion": ""}])), test=0.1)


@pytest.fixture
def tokenizer(spec):
    return train_tokenizer(spec.load(), "character", 64)


@pytest.fixture
def parsed(monkeypatch):
    """Count how often the source parses its data."""
    calls = []
    read = RowFiles.read
    monkeypatch.setattr(RowFiles, "read", lambda self: calls.append(self) or read(self))
    return calls


def arrow(folder):
    return next(folder.glob("encoded-*.arrow"))


def test_a_warm_load_parses_nothing_and_is_the_same(spec, tokenizer, parsed):
    cold = load_encoded(spec, tokenizer, 20)
    assert len(parsed) == 1
    warm = load_encoded(spec, tokenizer, 20)
    assert len(parsed) == 1
    assert plain(cold) == plain(warm)
    assert cold.findings[0] == "1 example with a blank completion: dropped."
    assert "longer than 20 tokens" in cold.findings[-1]
    assert plain(cold) == plain(encode(spec.load(), tokenizer, 20))
    assert all(len(part) for part in plain(cold)[3].values())


def test_the_cache_dir_can_be_given(spec, tokenizer, cache, tmp_path):
    load_encoded(spec, tokenizer, 20, tmp_path / "mine")
    assert arrow(tmp_path / "mine")
    assert not list(cache.iterdir())


def test_nothing_is_left_aside(spec, tokenizer, cache):
    load_encoded(spec, tokenizer, 20)
    assert sorted(p.suffix for p in cache.iterdir()) == [".arrow", ".digest"]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "no digest", "other digest"])
def test_a_corrupt_file_is_rebuilt(spec, tokenizer, cache, parsed, harm):
    # A mapped file must not be cut short under its reader: only a copy outlives this line.
    cold = plain(load_encoded(spec, tokenizer, 20))
    file = arrow(cache)
    beside = file.with_name(file.name + ".digest")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 255
    if harm == "flip":
        file.write_bytes(raw)
    elif harm == "cut":
        file.write_bytes(raw[: len(raw) // 2])
    elif harm == "empty":
        file.write_bytes(b"")
    elif harm == "no digest":
        beside.unlink()
    else:
        beside.write_bytes(b"nonsense")
    again = load_encoded(spec, tokenizer, 20)
    assert len(parsed) == 2
    assert plain(again) == cold
    load_encoded(spec, tokenizer, 20)
    assert len(parsed) == 2


def test_whatever_decides_the_result_is_in_the_key(spec, tokenizer, jsonl, pairs):
    first = load_encoded(spec, tokenizer, 20).fingerprint
    assert first != load_encoded(spec, tokenizer, 21).fingerprint
    assert first != load_encoded(TasksSpec(path=spec.path, test=0.2), tokenizer, 20).fingerprint
    template = train_tokenizer(spec.load(), "character", 64)
    template.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert first != load_encoded(spec, template, 20).fingerprint
    assert first != load_encoded(spec, train_tokenizer(spec.load(), "bpe", 300), 20).fingerprint
    tokenizer("pad me", padding="max_length", truncation=True, max_length=4)
    assert first == load_encoded(spec, tokenizer, 20).fingerprint
    jsonl(pairs)
    assert first != load_encoded(spec, tokenizer, 20).fingerprint


def test_a_folder_that_cannot_be_made(spec, tokenizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ApportionError, match=r"Cannot make the cache folder .* set APPORTION_CACHE"):
        load_encoded(spec, tokenizer, 20, tmp_path / "file" / "deeper")


def test_a_failed_encoding_leaves_nothing(jsonl, pairs, cache, tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ApportionError, match="refuses"):
        load_encoded(TasksSpec(path=str(jsonl(pairs))), tokenizer, 20)
    assert not list(cache.iterdir())


class TestTrainedTokenizers:
    def test_the_cached_one_is_the_trained_one(self, spec, parsed, cache):
        for kind, size in (("bpe", 300), ("character", 64)):
            parsed.clear()
            cold, warm = (load_tokenizer_trained(spec, kind, size) for _ in range(2))
            assert len(parsed) == 1
            assert len(list(cache.glob("tokenizer-*.json"))) == (1 if kind == "bpe" else 2)
            fresh = train_tokenizer(spec.load(), kind, size)
            states = [t.backend_tokenizer.to_str() for t in (cold, warm, fresh)]
            assert states[0] == states[1] == states[2]
            assert (warm.pad_token, warm.eos_token, warm.unk_token) == ("<pad>", "<eos>", "<unk>")
            assert load_encoded(spec, cold, 20).fingerprint == encode(spec.load(), fresh, 20).fingerprint

    def test_processes_agree(self, mini_path):
        code = (
            "from apportion.tasks import *; from apportion.tasks.tokenizers import tokenizer_fingerprint as f\n"
            f"print(f(train_tokenizer(load_tasks('{mini_path}'), 'bpe', 1000)))"
        )
        prints = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed, parallel in (("1", "true"), ("2", "false"))
        }
        assert len(prints) == 1

    def test_only_train_splits_are_seen(self, jsonl, pairs):
        file = jsonl(pairs)
        held = TasksSpec(path=str(file)).load().tasks[0].validation[0]
        rows = [{**row, "completion": "\u00e9"} if row["prompt"] == held.prompt else row for row in pairs]
        tokenizer = train_tokenizer(TasksSpec(path=str(jsonl(rows))).load(), "character", 64)
        assert "\u00e9" not in tokenizer.get_vocab()
        assert tokenizer("\u00e9")["input_ids"] == [tokenizer.unk_token_id]

    def test_characters_round_trip(self, mini):
        tokenizer = train_tokenizer(mini, "character", 1000)
        text = mini.tasks[0].train[0].prompt + "\n "
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert len(tokenizer(text)["input_ids"]) == len(text)

    def test_bytes_round_trip(self, mini):
        tokenizer = train_tokenizer(mini, "bpe", 500)
        assert len(tokenizer) == 500
        for text in ("never seen \u732b \U0001f600", " leading", "trailing  \n"):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    def test_saved_and_loaded(self, mini, tmp_path):
        from transformers import AutoTokenizer

        tokenizer = train_tokenizer(mini, "bpe", 500)
        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        text = json.dumps(["some text", " more"])
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.pad_token_id == tokenizer.pad_token_id

    @pytest.mark.parametrize(
        ("kind", "size", "message"),
        [
            ("bpe", 100, "at least 259, not 100"),
            ("character", 10, "a 'vocab_size' of at least"),
            ("charater", 100, r"'charater' \(did you mean 'character'\?\)"),
        ],
    )
    def test_bad_settings(self, playground, kind, size, message):
        with pytest.raises(ApportionError, match=message):
            train_tokenizer(playground, kind, size)

    @pytest.mark.parametrize("long", ["a", " ", "\n", "ab", "\u732b", "1", "!", "a!"])
    def test_no_long_word_reaches_the_trainer(self, long):
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
        for text in (long * 2_500, f"Here is {long * 2_500} and that's it.", f"x {long * 1001}"):
            pieces = list(_bounded(text, splitter))
            assert "".join(pieces) == text
            words = [text[a:b] for _, (a, b) in splitter.pre_tokenize_str(text)]
            cut = [piece[a:b] for piece in pieces for _, (a, b) in splitter.pre_tokenize_str(piece)]
            assert max(map(len, cut)) <= 1000
            assert [word for word in cut if word in words] == [word for word in words if len(word) <= 1000]

    def test_texts_without_long_words_are_trained_on_whole(self, mini):
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
        for text in [*_texts(mini), "\u732b" * 900 + "\u3002" + "\u732b" * 900, "a " * 5_000, "x" * 1000, ""]:
            assert list(_bounded(text, splitter)) == [text]
