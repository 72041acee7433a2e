"""What a benchmark's name stands for: a suite, a set of tasks or one task, shipped here, a file, or the harness's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion._errors import ApportionError, nearest
from apportion._yaml import load_yaml
from apportion.evaluation.aside import aside
from apportion.tasks.network import hub

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

_HERE = resources.files("apportion.evaluation")
_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class Benchmark:
    """One task of the harness: its name, the set that it was asked for by, and the harness's object of it."""

    name: str
    set: str
    task: Any

    @property
    def runs_code(self) -> bool:
        """Whether what the model writes is run to judge it."""
        return bool(getattr(self.task, "UNSAFE_CODE", False))


@cache
def suites() -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Return the named suites: each one's groups, and the sets of each group."""
    found: dict[str, dict[str, list[str]]] = load_yaml((_HERE / "suites.yaml").read_text("utf-8"), "suites.yaml")
    return found


def groups_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the groups of all suites among the names, by name."""
    return {group: list(sets) for name in names for group, sets in suites().get(name, {}).items()}


def sets_of(names: Sequence[str]) -> list[str]:
    """Return the names with suites spelled out, each once."""
    spelled = [
        [name] if name not in suites() else [s for sets in suites()[name].values() for s in sets] for name in names
    ]
    return list(dict.fromkeys(name for part in spelled for name in part))


def load(names: Sequence[str], *, run_code: bool) -> list[Benchmark]:
    """Return the tasks behind the names, in order, with their examples.

    Args:
        names: As a recipe has them.
        run_code: Whether tasks may run what the model writes.

    Raises:
        ApportionError: The harness is not installed, a name that nothing has, examples that are not at hand, a task that is
            asked for twice, or code that may not be run.
    """
    found: dict[str, Benchmark] = {}
    with aside():
        for name in sets_of(names):
            said = Path(name).stem if name.endswith(_FILES) else name
            for task, loaded in _load(name).items():
                if task in found:
                    both = f"'{found[task].set}' and '{said}'"
                    raise ApportionError(f"The benchmark '{task}' is asked for twice, by {both}: leave one out.")
                found[task] = Benchmark(task, said, loaded)
                _check_code(found[task], run_code)
    return list(found.values())


def _check_code(benchmark: Benchmark, run_code: bool) -> None:
    if not benchmark.runs_code:
        return
    if benchmark.set not in _shipped().all_tasks:
        raise ApportionError(
            f"The benchmark '{benchmark.name}' would run generated code inside this process: of those that run code, only "
            "humaneval and mbpp are run apart from it."
        )
    if not run_code:
        raise ApportionError(
            f"The benchmark '{benchmark.name}' runs code that the model writes: allow it with --run-code, or "
            "'evaluate.run_code: true', or leave it out. It is run without a network, in a process of its own."
        )
    from apportion.evaluation.sandbox import check

    check()


def _load(name: str) -> dict[str, Any]:
    is_file = name.endswith(_FILES)
    if is_file and not Path(name).is_file():
        raise ApportionError(
            f"There is no file '{name}': a benchmark is a name, or a YAML file of the harness's format."
        )
    manager = _shipped() if is_file or name in _shipped().all_tasks else _harness()
    if not is_file and name not in manager.all_tasks:
        meant = nearest(name, [*suites(), *_shipped().all_tasks]) or nearest(name, manager.all_tasks)
        raise ApportionError(f"There is no benchmark '{name}'{meant}.")
    with hub() as reached:
        try:
            return dict(manager.load([name])["tasks"])
        except Exception as error:
            # Tasks run code of their own to read their examples, and everything may go wrong in there.
            raise ApportionError(f"The benchmark '{name}' cannot be read: {_why(error, reached)}.") from error


def _why(error: Exception, reached: bool) -> str:
    from datasets.exceptions import DatasetNotFoundError

    cause = error.__cause__ or error
    said = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
    if isinstance(error, ImportError):
        return f"{said}; install what it needs"
    if not reached and isinstance(error, ConnectionError | DatasetNotFoundError):
        return f"it needs the Hugging Face Hub, which cannot be reached ({said}); bbh and gsm8k read local files"
    return said


@cache
def _shipped() -> TaskManager:
    return _manager()(include_path=str(_HERE / "local"), include_defaults=False)


@cache
def _harness() -> TaskManager:
    return _manager()()


def _manager() -> type[TaskManager]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ApportionError(
            "Benchmarks are run by lm-evaluation-harness, which is not installed: pip install 'apportion[evaluate]'."
        ) from None
    return TaskManager
