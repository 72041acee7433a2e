import json

import pytest

from apportion.tasks import load_tasks, train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("APPORTION_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def playground():
    return load_tasks(source="playground", scale=0.02)


@pytest.fixture(scope="session")
def mini_path():
    return "${APPORTION_DATA}/natural-instructions-mini"


@pytest.fixture(scope="session")
def mini(mini_path):
    return load_tasks(mini_path)


@pytest.fixture
def characters(playground):
    return train_tokenizer(playground, "character", 128)


@pytest.fixture
def chat(mini):
    """A byte-level BPE with a ChatML template and its markers as special tokens."""
    tokenizer = train_tokenizer(mini, "bpe", 600)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def jsonl(tmp_path):
    """Write rows as JSON Lines and return the file."""

    def write(rows, name="rows.jsonl"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return file

    return write


@pytest.fixture
def pairs():
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(30)]
