"""YAML as people write it: ``2e-4`` is a number, as in YAML 1.2, not the string that YAML 1.1 makes of it."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's floats."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:  # noqa: ANN401
    """Read one YAML document of plain values.

    Raises:
        yaml.YAMLError: It is not valid YAML.
    """
    return yaml.load(text, Loader=_Loader)
