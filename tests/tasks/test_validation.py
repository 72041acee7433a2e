"""The two halves of the validation split: by prompt, over all tasks, and as before where prompts are distinct."""

import json

import numpy as np
import pytest

from apportion.models.tagi.cutting import cut_texts
from apportion.tasks import EncodedCollection, EncodedSplit, EncodedTask, load_encoded, train_tokenizer
from apportion.tasks.spec import TasksSpec
from apportion.tasks.validation import halves

LABELLED = (np.array([5, 6]), np.array([-100, 6]))


def split(keys):
    return EncodedSplit.from_arrays([str(i) for i in range(len(keys))], [LABELLED] * len(keys), keys)


def collection(*keys):
    tasks = [
        EncodedTask(f"t{i}", split(range(1000 * i, 1000 * i + 9)), split(part), split([]))
        for i, part in enumerate(keys)
    ]
    return EncodedCollection(tasks, [], "none")


def keys_of(half):
    return [{int(items.keys[i]) for _, items, i in part} for part in half]


def places(half):
    return [[i for _, _, i in part] for part in half]


@pytest.mark.parametrize("n", [2, 3, 8, 61])
def test_distinct_prompts_are_cut_as_by_example(n):
    report, steer, findings = halves(collection(range(10, 10 + n)))
    order = np.random.default_rng([0, n]).permutation(n).tolist()
    assert places(report) == [order[: (n + 1) // 2]]
    assert places(steer) == [order[(n + 1) // 2 :]]
    assert findings == []


def test_completions_of_one_prompt_are_in_one_half():
    keys = [7, 8, 7, 9, 10, 8, 7, 11, 11]
    report, steer, _ = halves(collection(keys))
    assert not keys_of(report)[0] & keys_of(steer)[0]
    assert sorted(places(report)[0] + places(steer)[0]) == list(range(9))
    assert len(keys_of(report)[0]) == 3 and len(keys_of(steer)[0]) == 2


def test_a_prompt_of_two_tasks_is_in_one_half():
    rng = np.random.default_rng(0)
    for _ in range(50):
        parts = [rng.integers(0, 12, rng.integers(1, 8)).tolist() for _ in range(5)]
        report, steer, findings = halves(collection(*parts))
        own = [[item for item in part if len(item[1]) != 9] for part in steer]
        reported, steered = keys_of(report), keys_of(own)
        assert all(reported)
        assert not set().union(*reported) & set().union(*steered)
        assert [mine | theirs for mine, theirs in zip(reported, steered, strict=True)] == [set(part) for part in parts]
        assert len(findings) == sum(not part for part in steered)


def test_a_single_prompt_is_reported_on_and_steered_by_the_train_split():
    tasks = collection([3, 3, 3], [4, 5])
    report, steer, (finding,) = halves(tasks)
    assert places(report)[0] == [0, 1, 2]
    assert {id(items) for _, items, _ in steer[0]} == {id(tasks.tasks[0].train)}
    assert finding.startswith("Task 't0' has a single validation prompt")


def test_keys_come_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("APPORTION_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"question {i // 3}", "completion": f"answer {i}"} for i in range(90)]
    rows += [{"text": f"text {i} " + "and so on " * 9} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    spec = TasksSpec(path=str(tmp_path / "rows.jsonl"), validation=0.4)
    loaded = spec.load()
    said = {example.id: example.prompt or example.completion for task in loaded for example in task.validation}
    encoded = load_encoded(spec, train_tokenizer(loaded, "bpe", 300), 12)
    assert any(":1" in name for name in encoded.tasks[0].validation.ids)
    report, steer, _ = halves(encoded)
    sides = [{said[items.ids[i].split(":")[0]] for part in half for _, items, i in part} for half in (report, steer)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(said.values())
    texts = cut_texts(encoded).tasks[0].validation
    kept = dict(zip(encoded.tasks[0].validation.ids, encoded.tasks[0].validation.keys, strict=True))
    assert texts.keys.tolist() == [kept[name] for name in texts.ids]
