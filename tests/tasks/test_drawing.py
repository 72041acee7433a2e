import io
import re
from html import escape

from rich.console import Console

from apportion.tasks import Example, Task, TaskCollection, encode, load_tasks, table


def printed(collection, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(collection), crop=False)
    return [line.split() for line in console.export_text().splitlines()]


HELD = [Example("ab", "c", "h")]
ODD = Task("odd[name]", [Example("ab", "c", "1"), Example("a", "bc", "2")], HELD, [])


def test_one_line_a_task_and_one_for_all(characters):
    tasks = TaskCollection([ODD, Task("even", HELD, HELD, [])])
    assert printed(tasks) == [
        ["task", "train", "validation"],
        ["odd[name]", "2", "1"],
        ["even", "1", "1"],
        ["all", "2", "3", "2"],
    ]
    assert printed(encode(tasks, characters, 64))[:4] == [
        ["task", "train", "validation", "supervised", "processed"],
        ["odd[name]", "2", "1", "5", "10"],
        ["even", "1", "1", "2", "5"],
        ["all", "2", "3", "2", "7", "15"],
    ]


def test_the_test_split_has_a_column_where_there_is_one():
    tasks = TaskCollection([Task("t", HELD, HELD, HELD * 3)])
    assert printed(tasks)[:2] == [["task", "train", "validation", "test"], ["t", "1", "1", "3"]]


def test_long_names_stay_whole_and_on_their_line():
    name = "task_" * 20
    assert printed(TaskCollection([Task(name, HELD, HELD, [])]))[1] == [name, "1", "1"]


def test_a_notebook_shows_the_collection_as_a_table_with_its_findings(tmp_path):
    rows = [{"prompt": f"{n}", "completion": "yes"} for n in range(40)]
    tasks = load_tasks({"<b>bold": [*rows, rows[0]], "plain": rows[:20]})
    page = tasks._repr_html_()
    assert "&lt;b&gt;bold" in page and "<b>" not in page
    cells = re.findall(r">([\d,]+)<", page)
    assert [int(cell) for cell in cells] == [n for task in tasks for n in (len(task.train), len(task.validation))] + [
        sum(len(task.train) for task in tasks),
        sum(len(task.validation) for task in tasks),
    ]
    assert all(escape(finding) in page for finding in tasks.findings) and len(tasks.findings) >= 1
