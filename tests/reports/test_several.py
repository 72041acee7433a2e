"""Several comparisons in one report: a line each above, each whole below, and nothing of one in the other."""

import re
from itertools import pairwise

import pytest

from apportion._errors import ApportionError
from apportion.reports import verdict_on, write_report
from apportion.reports.verdict import verdict
from apportion.reports.view import load, load_apart, read_folders
from tests.reports import synthetic
from tests.reports.synthetic import write_comparison, write_run
from tests.reports.test_claims import Tree

NAMES = ["gain", "none", "goals"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    write_comparison(root / "gain", arms=("uniform", "adapt"), seeds=(0, 1), records=20)
    write_comparison(root / "goals", arms=("uniform", "adapt"), seeds=(0, 1), records=20, targets={"legal": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SPEED, "loss", synthetic.SPEED["uniform"])
        write_comparison(root / "none", arms=("uniform", "loss"), seeds=(0, 1), records=20)
    return [root / name for name in NAMES]


@pytest.fixture(scope="module")
def page(roots):
    return Tree(write_report(roots, roots[0].parent / "all.html").read_text("utf-8"))


def test_each_has_a_line_and_a_part_with_the_same_sections(roots, page):
    assert [row[0] for row in page.rows["overview"][1:]] == NAMES
    for place, (root, row) in enumerate(zip(roots, page.rows["overview"][1:], strict=True), 1):
        view = load([root])
        said = verdict(view)
        assert row[1] == said.headline and said.headline in page.text(f"c{place}-verdict")
        best = view.candidate.numbers
        assert row[2].startswith(f"{view.baseline.numbers['final'][view.metric]['mean']:.3f}")
        assert row[3].startswith(f"{best['final'][view.metric]['mean']:.3f}") and view.candidate.name in row[3]
        share = best["tokens_to_best_of"]["uniform"][view.metric]
        assert row[4].startswith(f"{100 * share['mean']:.0f} %" if share else "never")
        assert {f"c{place}-{name}" for name in ("methods", "gains", "curves", "tokens", "ledger", "runs")} <= set(
            page.ids
        )
    assert ("c3-targets" in page.ids, "c1-targets" in page.ids) == (True, False)


def test_ids_are_there_once_and_links_lead_to_them(page):
    assert len(set(page.ids)) == len(page.ids)
    links = {a["href"][1:] for _, held in page.pieces for tag, a in held if tag == "a" and a["href"].startswith("#")}
    assert {f"c{place}-verdict" for place in (1, 2, 3)} <= links <= set(page.ids)


def test_the_choices_of_one_part_are_not_those_of_another(roots):
    text = (roots[0].parent / "all.html").read_text("utf-8")
    groups = re.findall(r'<input type="radio" name="([^"]+)"', text)
    assert sorted(set(groups)) == ["c1-metric", "c2-metric", "c3-metric"]
    assert text.count(" checked>") == 3


def test_one_heading_of_the_page_and_parts_below_it(roots):
    levels = [int(n) for n in re.findall(r"<h([1-6])[ >]", (roots[0].parent / "all.html").read_text("utf-8"))]
    assert levels[0] == 1 and levels.count(1) == 1 and set(levels) == {1, 2, 3}
    assert all(after - before < 2 for before, after in pairwise(levels))


def test_the_command_line_hears_of_each(roots):
    said = verdict_on(roots)
    assert said.kind == "several" and said.headline == "3 comparisons, of which 2 show a gain."
    assert said.details == [f"{root.name}: {verdict(load([root])).headline}" for root in roots]
    assert verdict_on(roots[:1]) == verdict(load(roots[:1]))


def test_runs_one_by_one_are_one_comparison_beside_the_others(roots, tmp_path):
    write_run(tmp_path / "a", "uniform", records=20)
    write_run(tmp_path / "b", "adapt", records=20)
    views = load_apart(read_folders([roots[0], tmp_path / "a", roots[1], tmp_path / "b"]))
    assert list(views) == ["gain", "none", "runs given one by one"]
    assert [arm.name for arm in views["runs given one by one"].arms] == ["uniform", "adapt"]
    write_run(tmp_path / "c", "loss", records=20)
    for together in ([roots[0], tmp_path / "c"], [tmp_path / "a", tmp_path / "b"]):
        assert list(load_apart(read_folders(together))) == [""]


def test_comparisons_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for part in ("x", "y"):
        write_comparison(tmp_path / part / "cmp", arms=("uniform",), seeds=(0,), records=10)
    assert list(load_apart(read_folders([tmp_path / "x" / "cmp", tmp_path / "y" / "cmp"]))) == ["x/cmp", "y/cmp"]
    with pytest.raises(ApportionError, match="given twice"):
        load_apart(read_folders([tmp_path / "x" / "cmp", tmp_path / "x" / "cmp"]))
    with pytest.raises(ApportionError, match="not a folder"):
        write_report([tmp_path / "x" / "cmp", tmp_path / "missing"], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_a_comparison_without_a_verdict_has_a_line_too(roots, tmp_path):
    write_comparison(tmp_path / "part", arms=("uniform", "adapt"), seeds=(0,), records=20, stop=0.5)
    page = Tree(write_report([roots[0], tmp_path / "part"], tmp_path / "out.html").read_text("utf-8"))
    assert page.rows["overview"][2] == [
        "part",
        "No verdict yet: fewer than two arms have finished and were validated.",
        "–",
        "–",
        "–",
    ]
