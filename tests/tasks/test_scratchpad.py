"""The scratchpad's problems, against an evaluation that reads the prompt and nothing else."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from apportion._errors import ApportionError
from apportion.tasks import SOURCES, TasksSpec, encode, load_tasks, train_tokenizer

TAGS = re.compile(r"<think>(.*)</think>(.*)", re.DOTALL)


def load(**settings):
    return load_tasks(source="scratchpad", **{"examples": 100, **settings})


def examples_of(tasks):
    return [example for task in tasks for split in ("train", "validation", "test") for example in task.split(split)]


def parts(example):
    thought, answer = TAGS.fullmatch(example.completion).groups()
    return thought, answer


def digits(prompt):
    """The values of a chain of digits, one by one, by Python's own arithmetic on brackets."""
    pieces = re.findall(r"[+*-]?\d", prompt)
    said, values = "", []
    for piece in pieces:
        said = f"({said}{piece})"
        values.append(str(eval(said) % 10))
    return values


def permutations(prompt):
    """The same of permutations, as the places that tokens a to e end at."""
    first, *others = prompt.rstrip("?").split("*")
    values = [first]
    for other in others:
        places = {element: int(place) for element, place in zip("abcde", values[-1], strict=True)}
        values.append("".join(other[places[element] - 1] for element in "abcde"))
    return values


LITERAL = {"arithmetic": digits, "permutations": permutations}


@pytest.fixture(scope="module", params=["arithmetic", "permutations"])
def written(request):
    steps = [1, 4] if request.param == "permutations" else [2, 8]
    return request.param, load(problem=request.param, steps=steps, test=0.1)


def test_every_trace_ends_in_the_answer_of_a_literal_evaluation(written):
    problem, tasks = written
    for example in examples_of(tasks):
        values = LITERAL[problem](example.prompt)
        thought, answer = parts(example)
        assert (answer,) == example.references == (values[-1],)
        assert re.findall(r"(\d+);", thought) == values[1:]
        assert len(values) - 1 == int(example.id.split("-")[0].removeprefix("steps"))


def test_a_task_is_a_number_of_steps_and_no_problem_is_on_two_sides(written):
    problem, tasks = written
    assert list(tasks.names) == [f"steps{n}" for n in (range(1, 5) if problem == "permutations" else range(2, 9))]
    prompts = Counter(example.prompt for example in examples_of(tasks))
    assert set(prompts.values()) == {1} and len(prompts) == 100 * len(tasks)
    assert all(task.train and task.validation and task.test for task in tasks)


def test_names_sort_as_their_numbers_do():
    names = load(steps=[8, 11], examples=20).names
    assert list(names) == sorted(names) == ["steps08", "steps09", "steps10", "steps11"]


@pytest.mark.parametrize(
    ("problem", "styles"),
    [("arithmetic", {"terse": r"\d;", "verbose": r"\d[+*-]\d=\d;"}),
     ("permutations", {"terse": r"\d{5};", "verbose": r"\d{5}\*\d{5}=\d{5};", "spelled": r"(\d>\d>\d,){5}\d{5};"})],
)  # fmt: skip
def test_a_style_is_drawn_for_each_problem(problem, styles):
    both = examples_of(load(problem=problem, examples=200, steps=[2, 3]))
    seen = Counter(
        next(name for name, step in styles.items() if re.fullmatch(f"({step})+", parts(example)[0])) for example in both
    )
    assert set(seen) == set(styles)
    assert all(abs(n / len(both) - 1 / len(styles)) < 0.1 for n in seen.values())
    for name, step in styles.items():
        only = examples_of(load(problem=problem, examples=200, steps=[2, 3], styles=[name]))
        assert all(re.fullmatch(f"({step})+", parts(example)[0]) for example in only)
        assert [e.prompt for e in only] == [e.prompt for e in both]


def test_a_style_that_is_named_twice_is_drawn_twice_as_often():
    drawn = examples_of(load(examples=300, steps=[3, 4], styles=["terse", "verbose", "verbose"]))
    assert 0.6 < sum("=" in example.completion for example in drawn) / len(drawn) < 0.73


def test_a_verbose_step_says_what_is_done():
    for example in examples_of(load(styles=["verbose"])):
        values = digits(example.prompt)
        operations = re.findall(r"[+*-]\d", example.prompt)
        steps = [f"{b}{o}={a};" for b, o, a in zip(values, operations, values[1:], strict=False)]
        assert parts(example)[0] == "".join(steps)


def test_nothing_collapses():
    last = Counter(parts(example)[1] for example in examples_of(load(examples=1000, steps=[8, 8])))
    assert set(last) == set("0123456789") and max(last.values()) < 160


@pytest.mark.parametrize("problem", ["arithmetic", "permutations"])
def test_a_slip_is_taken_back_behind_the_word(problem):
    whole, slipped = (
        examples_of(load(problem=problem, correct=share, examples=400, steps=[2, 4])) for share in (0.0, 0.25)
    )
    changed = 0
    for before, after in zip(whole, slipped, strict=True):
        assert before.prompt == after.prompt and before.references == after.references
        thought, answer = parts(after)
        if "Wait" not in thought:
            assert after == before
            continue
        changed += 1
        first, _, rest = thought.partition("Wait")
        right = parts(before)[0]
        kept, wrong = first[: -len(step := re.search(r"[^;]*;$", first)[0])], step
        # The step is written again, right this time, and all goes on as it would have.
        assert kept + rest == right and not rest.startswith(wrong) and answer == parts(before)[1]
    assert 0.2 < changed / len(whole) < 0.3


def test_the_seed_decides_and_processes_agree():
    code = (
        "from apportion.tasks import load_tasks\n"
        "print([(e.prompt, e.completion) for e in load_tasks(source='scratchpad', examples=20)['steps5'].train])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    one, other = (load(seed=seed) for seed in (0, 1))
    assert one.fingerprint != other.fingerprint
    assert [e.prompt for e in one["steps5"].train] != [e.prompt for e in other["steps5"].train]


def test_fewer_examples_are_part_of_more():
    few, many = (load(examples=examples) for examples in (50, 100))
    assert {(e.prompt, e.completion) for e in examples_of(few)} <= {(e.prompt, e.completion) for e in examples_of(many)}


def test_no_task_takes_more_than_half_of_the_problems_there_are():
    tasks = load(steps=[1, 2], examples=500)
    assert len(examples_of([tasks["steps1"]])) == 105 and len(examples_of([tasks["steps2"]])) == 500
    assert "Task 'steps1' has 105 examples, half of the problems of 1 step that there are." in tasks.findings


def test_tags_of_ones_own_and_an_instruction_apart():
    tasks = load(open="[", close="]", wait="no ", correct=1.0, instruction="apart")
    assert all(re.fullmatch(r"\[[^]]*no [^]]*\]\d", example.completion) for example in examples_of(tasks))
    assert set(tasks.instructions) == {"work out the chain from left to right, and give the last digit"}


def test_it_is_a_path_too():
    by_path, by_name = (TasksSpec.model_validate({key: "scratchpad", "examples": 20}) for key in ("path", "source"))
    assert by_path == by_name and by_path.fingerprint() == by_name.fingerprint()
    assert "scratchpad" in SOURCES


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"example": 5}, r"Unknown key 'tasks.example' \(did you mean 'examples'\?\)"),
     ({"examples": 1}, r"'tasks.examples' is 1"),
     ({"steps": [3, 2]}, r"'tasks.steps' is \[3, 2\]: must be the fewest and the most steps"),
     ({"steps": [0, 2]}, r"of 1 to 20"),
     ({"steps": [2, 30]}, r"of 1 to 20"),
     ({"steps": 4}, r"'tasks.steps' is 4: must be a list"),
     ({"styles": ["tersely"]}, r"'tasks.styles' is \['tersely'\]: there is no style 'tersely' \(did you mean 'terse'\?\)"),
     ({"styles": ["spelled"]}, r"no style 'spelled'"),
     ({"styles": []}, r"'tasks.styles' is \[\]: name some of terse, verbose, or leave it out"),
     ({"correct": 1.5}, r"'tasks.correct' is 1.5"),
     ({"close": ""}, r"'tasks.close' is ''"),
     ({"problem": "arithmetics"}, r"'tasks.problem' is 'arithmetics'")],
)  # fmt: skip
def test_bad_keys(settings, said):
    with pytest.raises(ApportionError, match=said):
        load_tasks(source="scratchpad", **settings)


def test_tags_that_are_tokens_make_the_thinking_as_long_as_it_looks():
    tasks = load(styles=["terse"])
    tokenizer = train_tokenizer(tasks, "character", 64, tokens=["<think>", "</think>"])
    split = encode(tasks, tokenizer, 128)["steps4"].train
    for i in range(len(split)):
        tokens, labels = split.example(i)
        assert (labels >= 0).sum() == 1 + 2 * 4 + 1 + 1 + 1
        assert tokenizer.decode(tokens, skip_special_tokens=True).count("</think>") == 1
