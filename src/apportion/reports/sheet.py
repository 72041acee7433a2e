"""What a page is of: comparisons by their losses, or runs of reinforcement by their answers. Asked here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from apportion._errors import ApportionError
from apportion.reports import rl
from apportion.reports.overview import Line, overview, titled
from apportion.reports.page import Page, body
from apportion.reports.verdict import Verdict, together, verdict
from apportion.reports.view import View, gathered, load_apart, read_folders
from apportion.runs import RunRecord


@dataclass(frozen=True)
class Laid:
    """A page's parts: the template of each, what each template needs, and a line of each where there are several."""

    template: str
    bodies: list[dict[str, Any]]
    overview: list[Line] = field(default_factory=list)


class Sheet(Protocol):
    """What a page is made of."""

    @property
    def title(self) -> str:
        """What kind of page it is."""

    @property
    def runs(self) -> list[RunRecord]:
        """Every run that it is worked out from."""

    @property
    def verdict(self) -> Verdict:
        """What it opens with."""

    def laid(self, folder: Path) -> Laid:
        """Return its parts, for a page that stands in ``folder``."""


@dataclass(frozen=True)
class Comparisons:
    """Views of trained runs, each a comparison or a run alone, by name."""

    views: Mapping[str, View]

    @property
    def title(self) -> str:
        """What kind of page it is."""
        return titled(self.views)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, view by view."""
        return [run for view in self.views.values() for run in view.runs]

    @property
    def verdict(self) -> Verdict:
        """The verdict of the one, or how many of several show a gain."""
        return together(self._verdicts)

    @cached_property
    def _verdicts(self) -> dict[str, Verdict]:
        return {name: verdict(view) for name, view in self.views.items()}

    def laid(self, folder: Path) -> Laid:
        """Return a part a view."""
        several = len(self.views) > 1
        pages = [
            Page(name, f"c{place}-" if several else "", 2 if several else 1, view, folder, self._verdicts[name])
            for place, (name, view) in enumerate(self.views.items(), 1)
        ]
        return Laid("comparison.html", [body(page) for page in pages], overview(pages) if several else [])


@dataclass(frozen=True)
class Reinforcement:
    """Runs of reinforcement, by arm."""

    view: rl.RlView

    @property
    def title(self) -> str:
        """What kind of page it is."""
        return rl.title(self.view)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, arm by arm."""
        return self.view.runs

    @cached_property
    def verdict(self) -> Verdict:
        """What changed since before reinforcement, or which arm came out best."""
        return rl.verdict(self.view)

    def laid(self, folder: Path) -> Laid:
        """Return the one part."""
        return Laid("reinforce.html", [rl.body(self.view, self.verdict, folder)])


def sheet_of(paths: Sequence[Path]) -> Sheet:
    """Read run and comparison folders, and return what their page is of.

    Raises:
        ApportionError: A path holds no run, two runs would be the same seed of the same arm, or some runs are of
            reinforcement and some are not.
    """
    found = read_folders(paths)
    runs = [run for _, arms in found for of_arm in arms.values() for run in of_arm]
    reinforced = next((run for run in runs if run.reinforced), None)
    trained = next((run for run in runs if not run.reinforced), None)
    if reinforced is None:
        return Comparisons(load_apart(found))
    if trained is not None:
        raise ApportionError(
            f"'{reinforced.path}' is a run of reinforcement and '{trained.path}' is none: give them to two reports."
        )
    return Reinforcement(rl.arrange(gathered(found)))
