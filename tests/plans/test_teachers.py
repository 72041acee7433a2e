"""A hypernetwork's LoRA teachers train on what it trains on, and on nothing that it is validated on."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion._errors import ApportionError
from apportion.tasks import TasksSpec

# Few inputs that tasks share, so that small tasks must be given validation examples by moving inputs between sides.
inputs = st.lists(st.integers(0, 25), min_size=3, max_size=14, unique=True)


def written(folder, tasks):
    for number, chosen in enumerate(tasks):
        rows = [
            {"instruction": f"rule {number}", "input": f"in {k}", "output": f"out {k + number}"} for k in sorted(chosen)
        ]
        (folder / f"t{number}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def sides(spec, name):
    """Input to side: the end of each prompt, which may begin with the instruction."""
    task = spec.load()[name]
    return {example.prompt.split("\n\n")[-1]: side for side in ("train", "validation") for example in task.split(side)}


@given(tasks=st.lists(inputs, min_size=3, max_size=5), picked=st.sets(st.integers(0, 2), min_size=1, max_size=2))
@settings(max_examples=40, deadline=None)
def test_a_teachers_split_is_the_students(tmp_path_factory, tasks, picked):
    folder = tmp_path_factory.mktemp("tasks")
    written(folder, tasks)
    student = {"source": "jsonl", "path": str(folder), "validation": 0.2}
    names = tuple(f"t{k}" for k in range(len(tasks)))
    try:
        TasksSpec(**student, instruction="apart").load()
    except ApportionError:
        return  # no split is possible at all
    for instruction in ("apart", "prompt"):
        chosen = tuple(f"t{k}" for k in sorted(picked))
        teacher = TasksSpec(**student, instruction=instruction, names=chosen, split_with=names)
        assert teacher.load().names == chosen
        for name in chosen:
            assert sides(teacher, name) == sides(TasksSpec(**student, instruction="apart"), name)


def test_the_subset_alone_would_be_split_otherwise(tmp_path):
    """What this is for: by itself a subset moves other inputs, and a prompt with its instruction hashes elsewhere."""
    written(tmp_path, [range(12), range(4, 16), range(8, 20)])
    student = {"source": "jsonl", "path": str(tmp_path), "validation": 0.2}
    whole = sides(TasksSpec(**student, instruction="apart"), "t0")
    assert sides(TasksSpec(**student, instruction="prompt", names=("t0",)), "t0") != whole
    kept = TasksSpec(**student, instruction="prompt", names=("t0",), split_with=("t0", "t1", "t2"))
    assert sides(kept, "t0") == whole


def test_a_task_to_split_with_that_is_not_there_is_named():
    with pytest.raises(ApportionError, match=r"'uper' under 'tasks.split_with'.*'upper'"):
        TasksSpec(source="playground", names=("copy",), split_with=("copy", "uper"), instruction="apart").load()
