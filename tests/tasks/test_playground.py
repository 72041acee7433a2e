import subprocess
import sys

import pytest

from apportion._errors import ApportionError
from apportion.tasks import exact_match, load_tasks
from apportion.tasks.sources.playground import RULES, solve


def test_twenty_tasks_from_sixty_to_six_thousand_examples():
    tasks = load_tasks(source="playground")
    sizes = {t.name: len(t.train) + len(t.validation) for t in tasks}
    assert len(sizes) == 20
    assert min(sizes.values()) == sizes["add1"] == 60
    assert max(sizes.values()) == sizes["copy"] == 6000
    assert all(len(t.validation) >= 6 for t in tasks)
    characters = {c for t in tasks for e in t.train for c in e.prompt + e.completion}
    assert len(characters) < 64


def test_every_completion_is_the_rules(playground):
    for task in playground:
        for example in [*task.train, *task.validation]:
            assert exact_match(task.name, example.prompt, example.completion)
            assert not exact_match(task.name, example.prompt, example.completion + "x")


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("copy abcd", "abcd"), ("echo abcd", "abcd"), ("reverse abcd", "dcba"), ("flip abcd", "dcba"),
        ("upper abcd", "ABCD"), ("upflip abcd", "DCBA"), ("sort dbca", "abcd"), ("first bcda", "b"),
        ("last bcda", "a"), ("next abgh", "bcha"), ("back abgh", "hafg"), ("double abc", "aabbcc"),
        ("swap abcd", "cdab"), ("count a abcaa", "3"), ("count c ababa", "0"), ("largest 3719", "9"),
        ("greet abcd", "hello"), ("add1 9+9", "18"), ("add2 10+99", "109"), ("add3 100+200", "300"),
        ("modmul 10*10", "3"),
    ],
)  # fmt: skip
def test_rules_by_hand(prompt, answer):
    task = prompt.split()[0]
    assert solve(task, prompt) == answer
    assert exact_match(task, prompt + "\n", f" {answer}\n")
    assert not exact_match(task, prompt, answer[:-1])


def test_related_tasks_are_related():
    for name in ("copy", "echo"):
        assert RULES[name].solve("hgfe") == "hgfe"
    assert RULES["upflip"].solve("abcd") == RULES["upper"].solve(RULES["reverse"].solve("abcd"))
    assert RULES["back"].solve(RULES["next"].solve("abcdefgh")) == "abcdefgh"


def test_the_seed_decides_and_processes_agree():
    code = (
        "from apportion.tasks import load_tasks\n"
        "print([e.prompt for e in load_tasks(source='playground', scale=0.01)['sort'].train])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    one, other = (load_tasks(source="playground", scale=0.02, seed=seed) for seed in (0, 1))
    assert one.fingerprint != other.fingerprint
    assert [e.prompt for e in one["copy"].train] != [e.prompt for e in other["copy"].train]


def test_a_smaller_playground_is_part_of_the_whole():
    small, whole = (load_tasks(source="playground", scale=scale) for scale in (0.1, 1.0))
    for task in small:
        everything = {e.prompt for split in ("train", "validation") for e in whole[task.name].split(split)}
        assert {e.prompt for e in task.train} <= everything


def test_wrong_tasks_and_prompts():
    with pytest.raises(ApportionError, match=r"'sorted' \(did you mean 'sort'\?\)"):
        solve("sorted", "sort ab")
    with pytest.raises(ApportionError, match="not of playground task 'sort'"):
        solve("sort", "copy ab")
