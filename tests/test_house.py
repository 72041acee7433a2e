"""The house holds: imports go downwards, the front door is light, and every method is where it should be."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from apportion.caches import CACHES
from apportion.mixtures import MIXTURES
from apportion.objectives import OBJECTIVES
from apportion.selections import SELECTIONS
from apportion.weights import WEIGHTS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "apportion"
MODULES = sorted(SOURCE.rglob("*.py"))

# The ground: what every floor may use. Then the floors, each folder of which may import from lower ones only.
GROUND = ("_errors", "_yaml", "_declared", "_config", "_registry", "_lazy", "_ranks")
FLOORS = (
    ("budget", "runs"),
    ("exports", "reports", "tasks"),
    ("models", "objectives"),
    ("signals",),
    ("mixtures", "selections", "weights", "caches", "thinking"),
    ("decoding",),
    ("training", "evaluation"),
    ("plans",),
    ("cli",),
)
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}


def folder_of(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file):
    """Yield (folder of apportion, line) for every import, inside functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "apportion" and rest:
                yield rest.split(".")[0], node.lineno


def allowed(mine, theirs):
    if theirs == mine or theirs == "__version__":
        return True
    if mine in GROUND:
        return theirs in GROUND[: GROUND.index(mine)]
    return theirs in GROUND or FLOOR[theirs] < FLOOR[mine]


def test_every_folder_stands_on_a_floor():
    stray = {folder_of(file) for file in MODULES} - set(FLOOR) - set(GROUND) - {"__init__"}
    assert not stray


def test_imports_go_downwards_and_never_sideways():
    # The package's own __init__ is the front door: it names things of every floor and imports none of them itself.
    wrong = [
        f"{file.relative_to(SOURCE).as_posix()}:{line} ({folder_of(file)}) imports {theirs}"
        for file in MODULES
        if folder_of(file) != "__init__"
        for theirs, line in imports(file)
        if not allowed(folder_of(file), theirs)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from apportion.plans.run import run_recipe", [("plans", 1)]),
        ("from apportion import budget, tasks", [("budget", 1), ("tasks", 1)]),
        ("import apportion.cli.main as m", [("cli", 1)]),
        ("if TYPE_CHECKING:\n    from apportion.tasks import Task", [("tasks", 2)]),
        ("def f():\n    import apportion.reports.report", [("reports", 2)]),
        ("import torch\nimport apportion\nfrom pathlib import Path", []),
    ],
)
def test_the_import_reader_sees_every_form(tmp_path, source, expected):
    file = tmp_path / "module.py"
    file.write_text(source)
    assert list(imports(file)) == expected


# Where what a method or model is may be asked: inside its own family.
ASKED = ("mixtures", "weights", "objectives", "signals", "models")
# Classes of models, as other libraries have them; layers of a model are no models.
MODEL_CLASSES = {"PeftModel", "PreTrainedModel", "PeftMixedModel", "Module", "Trainer"}


def asks_what_it_is(file):
    """Yield (class, line) for every isinstance or issubclass of a method or model that is not of the file's own family."""
    tree, origin = ast.parse(file.read_text("utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin |= {alias.asname or alias.name: str(node.module) for alias in node.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass")):
            continue
        for part in ast.walk(node.args[1]):
            name = part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""
            family = origin.get(name, "").removeprefix("apportion.").partition(".")[0]
            asked = "models" if name in MODEL_CLASSES else family
            if asked in ASKED and asked != folder_of(file):
                yield name, node.lineno


def test_nobody_asks_a_method_or_model_what_it_is():
    found = [
        f"{file.relative_to(SOURCE).as_posix()}:{line} {name}"
        for file in MODULES
        for name, line in asks_what_it_is(file)
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from apportion.mixtures import Adapt\nisinstance(m, Adapt)", ["Adapt"]),
        ("from apportion.models.tagi.adapting import TagiModel as T\nif isinstance(m, int | T): pass", ["T"]),
        ("from peft import PeftModel\nisinstance(m, (str, PeftModel))", ["PeftModel"]),
        ("import transformers\nissubclass(m, transformers.PreTrainedModel)", ["PreTrainedModel"]),
        ("from apportion.tasks import Task\nisinstance(m, Task) and isinstance(m, nn.Linear)", []),
    ],
)
def test_the_reader_of_questions_sees_every_form(tmp_path, monkeypatch, source, expected):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    file = tmp_path / "plans" / "module.py"
    file.parent.mkdir()
    file.write_text(source)
    assert [name for name, _ in asks_what_it_is(file)] == expected


def named_modules(file):
    """Return the modules that a file imports, or names for a later import: as a path, or a neighbour in an __init__."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.:]+", node.value):
            found |= {node.value.partition(":")[0]}
            if file.name == "__init__.py":
                # Tasks in the harness's own format name the functions that they call.
                yaml = "".join(task.read_text("utf-8") for task in file.parent.rglob("*.yaml"))
                found |= {name.rpartition(".")[0] for name in re.findall(r"!function (\S+)", yaml)}
                found.add(".".join(("apportion", *file.parent.relative_to(SOURCE).parts, node.value)))
    return found


def test_every_module_is_reached_from_the_command_line_or_the_front_door():
    def name_of(file):
        return ".".join(("apportion", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")

    files = {name_of(file): file for file in MODULES}
    reached, waiting = set(), ["apportion", "apportion.cli.main"]
    while waiting:
        name = waiting.pop()
        if name in files and name not in reached:
            reached.add(name)
            waiting += [*named_modules(files[name]), name.rpartition(".")[0]]
    assert set(files) - reached == set()


def test_the_rule_refuses_upwards_and_sideways():
    assert allowed("training", "signals") and allowed("cli", "budget") and allowed("budget", "_errors")
    assert not allowed("signals", "training")
    assert not allowed("mixtures", "weights")
    assert not allowed("_errors", "_config")
    assert not allowed("_registry", "budget")


def loaded_after(code):
    """Run ``code`` in a fresh interpreter and return which heavy packages it loaded."""
    heavy = ("torch", "transformers", "datasets", "peft", "pyarrow", "numpy", "matplotlib")
    tail = f"\nimport sys\nprint('LOADED', *(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("LOADED")[2].split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import apportion") == []


def test_help_loads_nothing_heavy():
    code = """
import sys
from apportion.cli.main import main
for arguments in (["--help"], ["--version"], ["train", "--help"], ["compare", "--help"], ["plan", "--help"]):
    sys.argv = ["apportion", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    else:
        raise AssertionError("the help did not end the command")
"""
    assert loaded_after(code) == []


def test_the_probe_would_notice():
    assert "numpy" in loaded_after("import numpy")


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_package_pins_nothing_and_stands_beside_the_users_own_torch():
    asked = PROJECT["dependencies"]
    assert not [line for line in asked if "==" in line]
    assert any(re.fullmatch(r"torch>=2\.8", line) for line in asked)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)


def test_the_package_imports_only_what_it_asks_for():
    distribution = {"yaml": "pyyaml", "bm25s": "bm25s"}
    extras = PROJECT["optional-dependencies"]
    lines = [
        *PROJECT["dependencies"],
        *extras["bm25"],
        *extras["embedding"],
        *extras["evaluate"],
        *extras["kernels"],
        *extras["minhash"],
        *extras["regmix"],
        *extras["rl"],
    ]
    asked = {re.split(r"[<>=!\[ ]", line)[0].replace("_", "-") for line in lines}
    # What comes with one of those and is that one's own: Jinja's strings, pydantic's core, the Hub's client.
    asked |= {"markupsafe", "pydantic-core", "huggingface-hub"}
    used = set()
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(str(node.module).partition(".")[0])
    foreign = used - set(sys.stdlib_module_names) - {"apportion"}
    assert {distribution.get(name, name.replace("_", "-")) for name in foreign} <= asked


PACKAGES = [file for file in MODULES if "lazily(" in file.read_text("utf-8") and file.name == "__init__.py"]


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: file.parent.name)
def test_every_public_name_is_found_and_no_other_is_listed(file):
    package = importlib.import_module(".".join(("apportion", *file.parent.relative_to(SOURCE).parts)))
    assert all(hasattr(package, name) for name in package.__all__) and not hasattr(package, "nowhere")
    assert set(getattr(package, "_HOME", package.__all__)) <= set(package.__all__)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_every_module_imports_and_says_what_it_is(file):
    parts = file.relative_to(SOURCE).with_suffix("").parts
    name = ".".join(("apportion", *parts)).removesuffix(".__init__")
    assert importlib.import_module(name).__doc__


def test_no_file_outgrows_a_reader():
    long = {file.relative_to(SOURCE).as_posix(): len(file.read_text("utf-8").splitlines()) for file in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


FAMILIES = {
    "caches": CACHES,
    "objectives": OBJECTIVES,
    "mixtures": MIXTURES,
    "selections": SELECTIONS,
    "weights": WEIGHTS,
}


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, known in FAMILIES.items() for name in known])
def test_every_method_has_its_four_places(family, name):
    cls = FAMILIES[family].get(name)
    assert (SOURCE / family / f"{name}.py").is_file()
    assert cls.__module__ == f"apportion.{family}.{name}"
    rows = [line for line in (ROOT / "docs" / "papers.md").read_text("utf-8").splitlines() if line.startswith("|")]
    assert any(f"`{family}.{cls.__name__}`" in row and f"`{name}`" in row for row in rows), "no line in docs/papers.md"
    tests = (ROOT / "tests" / family).glob("test_*.py")
    mention = re.compile(rf"[\"'= ]{name}[\"',}}]|\b(?:{family}|family)\.({name}|{cls.__name__})\b")
    assert any(mention.search(file.read_text("utf-8")) for file in tests), f"no test under tests/{family} names it"


@pytest.mark.parametrize("family", FAMILIES)
def test_papers_names_no_method_that_is_not_there(family):
    text = (ROOT / "docs" / "papers.md").read_text("utf-8")
    known = {FAMILIES[family].get(name).__name__ for name in FAMILIES[family]}
    assert set(re.findall(rf"`{family}\.(\w+)`", text)) == known
