"""YAML as 1.2 reads it, for recipes and for the folders that keep them: ``no`` is a task's name, ``2e-4`` is a number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from apportion._errors import ApportionError

# No recipe comes near; beyond a few hundred what reads and writes plain values runs out of stack.
DEEPEST = 64
# As many as Python converts at once.
MOST_DIGITS = 4300

# Plain words that are not text: the core schema of YAML 1.2, and '<<', which merges a block that an anchor names.
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


# What YAML, or one of its versions, breaks lines at.
_BREAKS = re.compile("[\n\r\x85\u2028\u2029]")


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 has them; a key twice, a pit of brackets and an endless number are errors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - none of 1.1's: add_implicit_resolver fills a copy

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        if self._depth > DEEPEST:
            raise _problem(f"more than {DEEPEST} levels of nesting", self.peek_event().start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _problem(f"the key '{key.value}' stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_int(self, node: Any) -> int:  # noqa: ANN401
        text = str(self.construct_scalar(node))
        if len(text) > MOST_DIGITS:
            raise _problem(f"a number of {len(text):,} digits", node.start_mark)
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:
            raise _problem(f"'{text}' is no whole number", node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text."""

    def represent_str(self, text: str) -> Any:  # noqa: ANN401
        # Other quotes fold lines, and some of these characters come back as a space.
        style = '"' if _BREAKS.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag, _words, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_words})$"), _first)
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def load_yaml(text: str, what: str) -> Any:  # noqa: ANN401
    """Read one YAML document of plain values.

    Args:
        text: The document.
        what: Names it at the start of an error's sentence.

    Raises:
        ApportionError: It is not valid YAML, a key stands twice, or it is nested beyond all use.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        said = f": {error.problem}" if isinstance(error, _Refusal) else ""
        raise ApportionError(f"{what} is not valid YAML{place}{said}.") from None
    except ValueError as error:  # a value that its explicit tag does not fit, such as !!timestamp
        raise ApportionError(f"{what} is not valid YAML: {str(error).rstrip('.')}.") from None


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML that `load_yaml`, and readers of YAML 1.1, read back as they are."""
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def flow(value: object) -> str:
    """Return a plain value on one line, as it can stand after a key or inside of brackets in any document."""
    written = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return str(written).strip()[1:-1]


class _Refusal(yaml.MarkedYAMLError):
    """What is YAML but is not taken; its problem is told."""


def _problem(said: str, mark: Any) -> _Refusal:  # noqa: ANN401
    return _Refusal(problem=said, problem_mark=mark)
