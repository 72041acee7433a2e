"""The documentation site is made of what the repository links to and of each public name, and of nothing from elsewhere."""

import importlib
import importlib.util
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_the_public_names_are_those_that_python_sees(hooks):
    found = hooks.public(ROOT / "src")
    assert {"apportion", "apportion.mixtures", "apportion.weights", "apportion.budget", "apportion.runs"} <= set(found)
    for package, names in found.items():
        assert list(names) == list(importlib.import_module(package).__all__)


def test_every_package_that_lists_names_has_a_page(hooks):
    listed = {
        ".".join(file.parent.relative_to(ROOT / "src").parts)
        for file in (ROOT / "src" / "apportion").rglob("__init__.py")
        if "\n__all__ = [" in file.read_text("utf-8")
    }
    assert set(hooks.reference(ROOT / "src")) == {f"reference/{package}.md" for package in listed}


def test_every_public_name_stands_in_the_reference_once(hooks):
    text = "".join(hooks.reference(ROOT / "src").values()).splitlines()
    shown = [line.removeprefix("::: ") for line in text if line.startswith("::: ")]
    assert len(shown) == len(set(shown))
    for package, names in hooks.public(ROOT / "src").items():
        for name in names:
            linked = [line for line in text if line.startswith(f"- [`{name}`]")]
            assert f"{package}.{name}" in shown or linked, f"{package}.{name}"


def test_a_new_package_and_a_new_name_come_in_by_themselves(hooks, tmp_path):
    source = written(
        tmp_path,
        {
            "apportion/__init__.py": "from apportion.low import Thing\n__all__ = ['Thing', 'low', 'own']\n",
            "apportion/low/__init__.py": (
                "if TYPE_CHECKING:\n    from apportion.low.file import Other, Thing\n__all__ = ['Other', 'Thing']\n"
            ),
            "apportion/bare/__init__.py": '"""Lists nothing."""\n',
            "apportion/_hidden/__init__.py": "__all__ = ['Secret']\n",
        },
    )
    pages = hooks.reference(source)
    assert list(pages) == ["reference/apportion.md", "reference/apportion.low.md"]
    assert "::: apportion.low.Other\n" in pages["reference/apportion.low.md"]
    assert "::: apportion.low.Thing\n" in pages["reference/apportion.low.md"]
    front = pages["reference/apportion.md"]
    assert "::: apportion.own\n" in front and "::: apportion.Thing" not in front
    assert "[`Thing`][apportion.low.Thing]" in front and "[`low`](apportion.low.md)" in front


def test_the_site_holds_what_pages_link_to_and_only_that(hooks, tmp_path):
    root = written(
        tmp_path,
        {
            "README.md": "[a](docs/a.md#part), [out](https://example.org/b.md), [x](examples) and `[no](docs/no.md)`\n",
            "docs/a.md": "![p](p.svg) [s](../studies/s/README.md) [gone](gone.md) [up](../../secret.md)\n",
            "docs/b.md": "    [in code](../studies/code.md)\n",
            "docs/p.svg": "<svg/>",
            "studies/s/README.md": "[the run](run.py), [above](../../README.md)\n",
            "studies/s/run.py": "",
            "studies/s/other.py": "",
            "studies/code.md": "",
            "examples/01.py": "",
            "examples/__pycache__/01.pyc": "",
        },
    )
    found = hooks.tree(root)
    assert set(found) == {
        *("README.md", "docs/a.md", "docs/b.md", "docs/p.svg"),
        *("studies/s/README.md", "studies/s/run.py", "examples/README.md", "examples/01.py"),
    }
    assert found["examples/README.md"] == "# examples\n\n- [01.py](01.py)\n"
    text = hooks.to_pages((root / "README.md").read_text(), "README.md", found)
    assert "[x](examples/README.md)" in text and "[a](docs/a.md#part), [out](https://example.org/b.md)" in text


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/css">',
        '<link rel="preconnect" href="https://fonts.example.org">',
        '<img src="HTTP://example.org/a.png">',
        '<p style="background: url(https://example.org/a.png)">',
        '<pre class="mermaid"><code>graph</code></pre>',
        "<p>s_i = eta <g_i, u></p>",
        "<p>runs/<arm>/seed-0</p>",
    ],
)
def test_what_a_page_would_load_or_hide_is_found(hooks, page):
    assert len(hooks.faults(page)) == 1


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://arxiv.org/abs/2512.04555">paper</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<script src="assets/a.js"></script><link rel="stylesheet" href="../b.css"><img src="data:image/png;base64,AA">',
        "<p>&lt;g_i, u&gt; and <code>&lt;arm&gt;</code></p>",
    ],
)
def test_what_a_page_may_hold_is_no_fault(hooks, page):
    assert hooks.faults(page) == []


def test_style_sheets_are_looked_through(hooks):
    assert len(hooks.elsewhere_in_styles("@import 'https://a.org/x.css'; b { src: url(\"//b.org/f.woff\") }")) == 2
    assert hooks.elsewhere_in_styles("b { src: url(f.woff); c: url(data:image/svg+xml;utf8,x) }") == []


def config():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def paths(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else paths(value)


def test_the_site_is_strict_has_no_fonts_from_the_net_and_every_page_of_docs(hooks):
    settings = config()
    assert settings["strict"] is True and settings["theme"]["font"] is False
    listed = list(paths(settings["nav"]))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= set(listed)
    assert set(listed) <= set(hooks.tree(ROOT))
    assert not [path for path in listed if path.startswith("reference")], "written by hand"


def test_make_knows_the_site_and_installs_its_own_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(line.startswith("mkdocs-material") for line in extras["docs"])
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\nsite: $(STAMP)")[1]
    assert "'.[docs]'" in recipe and "--strict" in recipe
    assert "/site/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
