"""Which source a path asks for, from the files that are there."""

from __future__ import annotations

from pathlib import Path

from apportion._errors import ApportionError
from apportion.tasks.files import expand, hidden, read_text

_BY_SUFFIX = {
    ".json": "natural_instructions",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
}
_SAVED_DATASET = {"dataset_dict.json", "dataset_info.json"}


def infer(path: object) -> str:
    """Return the name of the source that reads what lies at ``path``.

    Raises:
        ApportionError: Nothing there, nothing known there, or files of several sources.
    """
    if not isinstance(path, (str, Path)):
        raise ApportionError("'tasks.source' is missing: several paths are read by source hub only.")
    root = expand(path)
    if not root.exists():
        raise ApportionError(
            f"There is no file or folder '{root}': check the path, or add 'source: hub' if it names a Hub data set."
        )
    if root.is_dir() and any((root / name).is_file() for name in _SAVED_DATASET):
        return "hub"
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file() and not hidden(p, root))
    kinds: dict[str, Path] = {}
    for file in files:
        suffix = Path(file.name.removesuffix(".gz")).suffix
        if suffix in _BY_SUFFIX:
            kinds.setdefault(_BY_SUFFIX[suffix], file)
    if not kinds:
        raise ApportionError(f"'{root}' holds no file of a known kind ({', '.join(_BY_SUFFIX)}): say 'source'.")
    if len(kinds) > 1:
        raise ApportionError(f"'{root}' holds files of several kinds ({', '.join(kinds)}): say which with 'source'.")
    kind, example = next(iter(kinds.items()))
    # A .json file that is a list of rows is not a Super-NaturalInstructions task but plain rows.
    if kind == "natural_instructions" and read_text(example).lstrip().startswith("["):
        return "jsonl"
    return kind
