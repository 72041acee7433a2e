import pytest

from apportion._errors import ApportionError
from apportion.tasks import Example, Task, TaskCollection
from apportion.tasks.collection import assemble
from apportion.tasks.example import RawTask


def raw(name, pairs, ids=None, keys=None):
    examples = [Example(p, c, ids[i] if ids else f"{name}-{i}") for i, (p, c) in enumerate(pairs)]
    return RawTask(name, f"{name}.file", examples, keys)


def everything(task):
    return [*task.train, *task.validation, *task.test]


FILL = [(f"fill {i}", "x") for i in range(20)]


def test_blanks_and_repeats_are_dropped_and_counted():
    tasks = assemble([raw("t", [*FILL, ("a", "b"), ("a", "b"), ("a", "c"), ("d", " \n"), ("e", "")])], 0.1, 0.0)
    kept = sorted((e.prompt, e.completion) for e in everything(tasks["t"]))
    assert kept == sorted([*FILL, ("a", "b"), ("a", "c")])
    assert "2 examples with a blank completion: dropped." in tasks.findings
    assert "1 example repeating prompt and completion of another in the same task: dropped." in tasks.findings


def test_a_pair_in_two_tasks_stays_in_both_on_one_side():
    tasks = assemble([raw("t", FILL), raw("u", [*FILL[:15], ("other", "y")])], 0.3, 0.2)
    for split in ("train", "validation", "test"):
        mine = {e.prompt for e in tasks["t"].split(split)}
        theirs = {e.prompt for e in tasks["u"].split(split)} - {"other"}
        assert theirs <= mine
    assert any(finding.startswith("15 input and completion pairs") for finding in tasks.findings)


def test_no_prompt_stands_on_two_sides_whatever_its_case_and_spacing():
    shouted = [(p.upper() + "  ", c + "!") for p, c in FILL]
    tasks = assemble([raw("t", FILL), raw("u", shouted)], 0.3, 0.2)
    for split in ("train", "validation", "test"):
        assert {e.prompt for e in tasks["t"].split(split)} == {
            e.prompt.strip().lower() for e in tasks["u"].split(split)
        }


def test_keys_stand_in_for_prompts():
    pairs = [(f"instruction {i % 2}: input {i // 2}", "x") for i in range(40)]
    tasks = assemble([raw("t", pairs, keys=[f"input {i // 2}" for i in range(40)])], 0.3, 0.0)
    held = [e.prompt.split(": ")[1] for e in tasks["t"].validation]
    assert held
    assert all(held.count(key) == 2 for key in held)


def test_ids_become_unique():
    tasks = assemble([raw("t", FILL, ids=["same"] * 20), raw("u", FILL)], 0.1, 0.0)
    ids = [e.id for task in tasks for e in everything(task)]
    assert len(set(ids)) == len(ids)
    assert "19 examples with an id already in use: given a numbered one." in tasks.findings


def test_halves_of_surrogate_pairs_are_replaced():
    tasks = assemble([raw("t", [*FILL, ("a\ud83d", "b"), ("whole \ud83d\ude00", "c")])], 0.1, 0.0)
    prompts = {e.prompt for e in everything(tasks["t"])}
    assert {"a\ufffd", "whole \U0001f600"} <= prompts
    assert any("surrogate" in finding for finding in tasks.findings)


def test_clean_data_has_no_findings():
    assert assemble([raw("t", FILL)], 0.5, 0.0).findings == []


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([raw("t", FILL), RawTask("t", "second.file", raw("t", FILL).examples)], r"'t': t\.file and second\.file"),
        ([raw("t", [])], r"'t' \(t\.file\) is empty"),
        ([raw("t", [("a", " ")])], r"'t' \(t\.file\) has only blank completions"),
        ([raw("t", [("a", "b")])], "'t' has 1 example of one prompt"),
        ([], "no tasks here"),
    ],
)
def test_tasks_that_cannot_be_are_named(tasks, message):
    with pytest.raises(ApportionError, match=message):
        assemble(tasks, 0.1, 0.0)


def test_order_lookup_and_fingerprint():
    tasks = assemble([raw("beta", FILL), raw("alpha", [(p + "?", c) for p, c in FILL])], 0.1, 0.0)
    assert tasks.names == ("beta", "alpha")
    assert [task.name for task in tasks] == ["beta", "alpha"]
    assert len(tasks) == 2
    with pytest.raises(ApportionError, match=r"'alfa' \(did you mean 'alpha'\?\)"):
        tasks["alfa"]
    again = assemble([raw("beta", FILL), raw("alpha", [(p + "?", c) for p, c in FILL])], 0.1, 0.0)
    other = assemble([raw("beta", FILL), raw("alpha", [(p + "?", "z") for p, c in FILL])], 0.1, 0.0)
    assert tasks.fingerprint == again.fingerprint != other.fingerprint


def test_tasks_made_by_hand():
    task = Task("t", [Example("a", "b", "1")], [Example("c", "d", "2")], [])
    assert TaskCollection([task])["t"].train[0].completion == "b"
    with pytest.raises(ApportionError, match="Two tasks are called 't'"):
        TaskCollection([task, task])
