"""Which source a path asks for, from the files that are there."""

from __future__ import annotations

from pathlib import Path

from apportion._errors import ApportionError
from apportion.tasks.files import first_lines, kind, located, walk
from apportion.tasks.sources._formats import READERS, one_a_line
from apportion.tasks.sources._source import Paths, paths_of

_SAVED_DATASET = {"dataset_dict.json", "dataset_info.json"}


def infer(path: Paths) -> str:
    """Return the name of the source that reads what lies at ``path``.

    Raises:
        ApportionError: Nothing there, nothing known there, or files that no one source reads.
    """
    roots = [located(one, ", or add 'source: hub' if it names a Hub data set") for _, one in paths_of(path)]
    found = {root: walk(root) for root in roots}
    if all(any(root / name in files for name in _SAVED_DATASET) for root, files in found.items()):
        return "hub"
    texts: list[Path] = []
    rows: list[Path] = []
    objects: list[Path] = []
    for file in (file for files in found.values() for file in files if kind(file) in READERS):
        (texts if kind(file) == ".txt" else rows if _holds_rows(file) else objects).append(file)
    if rows and objects:
        raise ApportionError(
            f"{rows[0]} holds rows and {objects[0]} one JSON object, as Super-NaturalInstructions tasks are: put them in "
            "folders of their own, or name the files to read in a list under 'tasks.path'."
        )
    if objects:
        return "natural_instructions"  # text files beside task files are lists and notes; a finding counts them
    if not rows and not texts:
        here = ", ".join(f"'{root}'" for root in roots)
        raise ApportionError(
            f"No file of a known kind ({', '.join(READERS)}) is at {here}: say 'source' or another path."
        )
    return "files"


def _holds_rows(file: Path) -> bool:
    """Say whether a file holds rows rather than one JSON object: a look at where a .json file starts."""
    if kind(file) != ".json":
        return True
    first = next((line.lstrip() for line in first_lines(file) if line.strip()), "")
    return first.startswith("[") or one_a_line(first_lines(file))
