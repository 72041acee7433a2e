import math
import subprocess
import sys
from collections import Counter

import pytest

from apportion._errors import ApportionError
from apportion.tasks import exact_match, load_tasks
from apportion.tasks.sources.playground import RULES, solve
from apportion.tasks.sources.quality import SKILLS, blends


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


def rights(tasks):
    """Return, by source, each example's skill and whether its answer is right."""
    return {
        task.name: [
            (example.prompt.split()[0], exact_match(example.prompt.split()[0], example.prompt, example.completion))
            for part in ("train", "validation", "test")
            for example in task.split(part)
        ]
        for task in tasks
    }


class TestQuality:
    @pytest.mark.parametrize("seed", [0, 1, 7])
    def test_ten_are_clean_five_look_like_these_and_five_are_broad(self, seed):
        found = rights(load_tasks(source="playground", suite="quality", seed=seed))
        assert list(found) == [f"source{i:02d}" for i in range(1, 21)]
        kinds = {"clean": [], "false": [], "broad": []}
        for examples in found.values():
            skills = Counter(skill for skill, _ in examples)
            share = skills.most_common(1)[0][1] / len(examples)
            wrong = sum(not right for _, right in examples) / len(examples)
            kind = "broad" if len(skills) > 3 else "clean" if wrong == 0 else "false"
            kinds[kind].append(skills.most_common(1)[0][0])
            assert set(skills) <= set(SKILLS) and len(examples) > 1400
            # Another input of the skill may have the same answer: count and largest have ten at most.
            if kind == "broad":
                assert len(skills) == 10 and 0.2 < wrong < 0.33
            else:
                assert len(skills) == 3 and 0.6 < share < 0.8
                assert kind == "clean" or 0.5 < wrong < 0.94
        assert sorted(kinds["clean"]) == sorted(SKILLS)
        assert len(kinds["false"]) == len(set(kinds["false"])) == len(kinds["broad"]) == 5

    def test_as_many_answers_are_anothers_as_the_blends_say(self):
        found = rights(load_tasks(source="playground", suite="quality"))
        for name, blend in blends(0).items():
            # Words of four or five letters have all but always another answer.
            judged = [right for skill, right in found[name] if skill in {"reverse", "upper", "next", "double"}]
            wrong, n = sum(not right for right in judged), len(judged)
            if n:
                assert abs(wrong / n - blend.wrong) <= 4 * math.sqrt(blend.wrong * (1 - blend.wrong) / n), name

    def test_sources_follow_from_the_seed_and_repeat_no_prompt(self):
        first, again, other = (load_tasks(source="playground", suite="quality", seed=seed) for seed in (3, 3, 4))
        assert first.fingerprint == again.fingerprint != other.fingerprint
        assert first.tasks == again.tasks and first.tasks != other.tasks
        for task in first:
            prompts = [example.prompt for part in ("train", "validation") for example in task.split(part)]
            assert len(prompts) == len(set(prompts)) == 1500

    def test_names_tell_nothing(self):
        orders = [[blend.wrong for blend in blends(seed).values()] for seed in range(4)]
        assert len({tuple(order) for order in orders}) == 4

    def test_it_has_no_instructions_that_could_stand_apart(self):
        with pytest.raises(ApportionError, match="'suite: quality' has no one instruction"):
            load_tasks(source="playground", suite="quality", instruction="apart")

    def test_an_unknown_suite_is_refused(self):
        with pytest.raises(ApportionError, match=r"'tasks\.suite' is 'qualty'"):
            load_tasks(source="playground", suite="qualty")


class TestSkills:
    def test_all_answers_are_right_and_inputs_of_their_own(self):
        skills, tasks = (load_tasks(source="playground", suite=suite) for suite in ("skills", "tasks"))
        assert skills.names == SKILLS
        for name, examples in rights(skills).items():
            assert len(examples) == 1500 and all(right and skill == name for skill, right in examples)
        streams = [[example.prompt for example in load["reverse"].train[:50]] for load in (skills, tasks)]
        assert streams[0] != streams[1]
        assert skills.fingerprint != tasks.fingerprint

    def test_instructions_may_stand_apart(self):
        skills = load_tasks(source="playground", suite="skills", scale=0.05, instruction="apart")
        assert all(skills.instructions)
