"""The data's own README counts instances and dirt; reading must find the same. Missing data fails here, never skips."""

import pytest

from apportion._errors import ApportionError
from apportion.tasks import encode, load_encoded, load_tasks, load_tokenizer_trained
from apportion.tasks.spec import TasksSpec


def size(task):
    return len(task.train) + len(task.validation) + len(task.test)


def test_all_of_natural_instructions():
    tasks = load_tasks("${APPORTION_DATA}/natural-instructions")
    assert len(tasks) == 71
    assert sum(map(size, tasks)) == 201_848
    assert size(tasks["task603_wikitext-103_fill_in_the_blank"]) == 224
    assert any(f.startswith("6 examples with the Unicode replacement character") for f in tasks.findings)
    assert any(f.startswith("15,593 examples with several references") for f in tasks.findings)
    across = next(f for f in tasks.findings if "in more than one task" in f)
    # The README counts 2,025 by any reference; a completion is the first one.
    assert across.startswith("2,024 ")
    assert not any("dropped" in f for f in tasks.findings)
    sides = {}
    for task in tasks:
        for split in ("train", "validation"):
            assert task.split(split)
            for example in task.split(split):
                assert sides.setdefault(example.prompt, split) == split
    shares = sum(len(task.validation) for task in tasks) / 201_848
    assert shares == pytest.approx(0.05, abs=0.005)
    twins = [tasks["task1195_disflqa_disfluent_to_fluent_conversion"], tasks["task1622_disfl_qa_text_modication"]]
    held, trained = ({e.prompt.rsplit("\n\n", 1)[-1] for e in part} for part in (twins[0].validation, twins[1].train))
    assert not held & trained


def test_the_mini_set_by_category_encodes_whole(mini_path):
    spec = TasksSpec(path=mini_path, group_by="category", max_length=256)
    tasks = spec.load()
    assert len(tasks) == 20
    assert sum(map(size, tasks)) == 2_155
    tokenizer = load_tokenizer_trained(spec, "bpe", 2048)
    encoded = load_encoded(spec, tokenizer, spec.max_length)
    assert encoded.fingerprint == encode(tasks, tokenizer, 256).fingerprint
    assert sum(kinds["examples"] for splits in encoded.counts().values() for kinds in splits.values()) == 2_155
    for task, raw in zip(encoded, tasks, strict=True):
        for i, example in enumerate(raw.validation):
            tokens, labels = task.validation.example(i)
            words = tokenizer.decode(labels[labels >= 0])
            assert words == example.completion + "<eos>" or len(tokens) == 256
            assert example.completion.startswith(words.removesuffix("<eos>"))


def test_evaluation_sets_are_refused_with_what_they_hold():
    with pytest.raises(ApportionError, match=r"has the fields question, answer; a row needs"):
        load_tasks("${APPORTION_DATA}/eval/gsm8k")
    with pytest.raises(ApportionError, match=r"holds an object with canary, examples"):
        load_tasks("${APPORTION_DATA}/eval/bbh")
