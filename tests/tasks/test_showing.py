import numpy as np
import pytest

from apportion.tasks import Example, Task, TaskCollection, encode, shown, train_tokenizer
from apportion.tasks.encoded import IGNORED
from apportion.tasks.showing import segments

TALK = tuple({"role": role, "content": text} for role, text in (("user", "a?"), ("assistant", "b"), ("user", "c?")))


def collection(*examples):
    return TaskCollection([Task("t", list(examples), [Example("held", "out", "h")], [])])


def test_segments_of_a_chat(chat):
    talk = Example("unused", "d", "talk", (*TALK, {"role": "assistant", "content": "d"}))
    tasks = collection(talk, Example("p", "q", "pair"), Example("p", "q", "left out"))
    assert shown(encode(tasks, chat, 512), chat, 2) == [
        {
            "task": "t",
            "id": "talk",
            "segments": [
                ["<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\n", False],
                ["b<|im_end|>", True],
                ["\n<|im_start|>user\nc?<|im_end|>\n<|im_start|>assistant\n", False],
                ["d<|im_end|>", True],
                ["\n", False],
            ],
        },
        {
            "task": "t",
            "id": "pair",
            "segments": [
                ["<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n", False],
                ["q<|im_end|>", True],
                ["\n", False],
            ],
        },
    ]


def test_what_is_cut_is_not_shown(characters):
    (said,) = shown(encode(collection(Example("sort abcdefgh", "abcdefgh", "1")), characters, 16), characters, 3)
    assert said["segments"] == [["sorfgh\n", False], ["abcdefgh<eos>", True]]


@pytest.mark.parametrize(
    "text", ["na\u00efve \u732b\u732b \U0001f600\u200d\U0001f600!", "plain  words", "\ufffd\u00e9"]
)
def test_segments_add_up_wherever_they_are_cut(mini, text):
    tokenizer = train_tokenizer(mini, "bpe", 300)
    tokens = np.array(tokenizer(text)["input_ids"])
    rng = np.random.default_rng(0)
    for _ in range(40):
        supervised = rng.integers(0, 2, len(tokens)).astype(bool)
        parts = segments(tokenizer, tokens, np.where(supervised, tokens, IGNORED))
        assert "".join(part for part, _ in parts) == tokenizer.decode(tokens) == text


def test_a_character_cut_between_two_tokens_belongs_to_the_second(mini):
    tokenizer = train_tokenizer(mini, "bpe", 300)
    tokens = np.array(tokenizer("a\u732b")["input_ids"])
    assert len(tokens) == 4
    labels = np.where(np.arange(4) >= 2, tokens, IGNORED)
    assert segments(tokenizer, tokens, labels) == [["a", False], ["\u732b", True]]
