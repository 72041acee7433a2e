import io

from rich.console import Console

from apportion.tasks import Example, Task, TaskCollection, encode, tree


def printed(collection):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tree(collection))
    return console.export_text()


def test_counts_by_task_and_split_and_findings(characters):
    held = [Example("ab", "c", "h")]
    task = Task("odd [name]", [Example("ab", "c", "1"), Example("a", "bc", "2")], held, [])
    tasks = TaskCollection([task], ["something [bold] was found"])
    text = printed(tasks)
    assert "1 task, 3 examples" in text
    assert "odd [name]" in text
    assert "train: 2 examples" in text
    assert "test:" not in text
    assert "something [bold] was found" in text
    text = printed(encode(tasks, characters, 64))
    assert "train: 2 examples, 5 supervised tokens, 10 processed tokens" in text
    assert "validation: 1 example, 2 supervised tokens, 5 processed tokens" in text
