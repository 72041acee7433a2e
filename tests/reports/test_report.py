"""Reports say what the run folders say, and no more: the sentences, the tables, the warnings."""

import re
from html.parser import HTMLParser

import pytest

from apportion._errors import ApportionError
from apportion.reports import picture, write_report
from apportion.reports.advice import advise
from apportion.reports.verdict import verdict
from apportion.reports.view import load
from tests.reports import synthetic
from tests.reports.synthetic import TASKS, UGLY, mixture, write_comparison, write_run


class Page(HTMLParser):
    """The page's text by section, and every element's attributes."""

    def __init__(self, text):
        super().__init__()
        self.text, self.sections, self.elements, self.skip, self.section = "", {}, [], False, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag in ("section", "header"):
            self.section = attrs["id"]
        self.skip = tag in ("style", "script") or (self.skip and tag != "body")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("style", "script"):
            self.skip = False

    def handle_data(self, data):
        if not self.skip:
            self.text += data
            self.sections[self.section] = self.sections.get(self.section, "") + data + " "


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def page(root):
    return Page(write_report(root).read_text("utf-8"))


def seen(view, arm):
    return " ".join(f"{item.seen} {item.todo}" for item in advise(view) if item.arm == arm)


def test_one_small_file_that_asks_for_nothing_else(root, page):
    text = (root / "report.html").read_text("utf-8")
    assert len(text) < 2_000_000
    assert not re.search(r"@import|url\((?!#)", text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            link = attributes.get(name, "data:,")
            # What is clicked may lead to a file of a run; nothing else leads anywhere.
            assert link.startswith(("data:", "#")) or (tag == "a" and (root / link).is_file()), (tag, attributes)


def test_every_section_is_there(page):
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {
        "verdict",
        "asked",
        "methods",
        "gains",
        "curves",
        "mixture",
        "tokens",
        "tasks",
        "ledger",
        "runs",
        "findings",
        "recipes",
    } <= ids


def test_the_headline_says_what_the_summary_says(root, page):
    said = verdict(load([root]))
    share = load([root]).arm("adapt").numbers["tokens_to_best_of"]["uniform"]["macro"]
    assert said.kind == "gain"
    assert (
        f"adapt reached uniform’s best macro loss with {100 * share['mean']:.0f} % of its tokens (3 seeds"
        in said.headline
    )
    assert said.headline in page.text


def test_names_are_shown_as_they_are_and_never_as_markup(root, page):
    for name in UGLY:
        assert name in page.sections["tasks"]
    assert "<b>" not in [f"<{tag}>" for tag, attributes in page.elements if "answering" in str(attributes)]
    assert 'question "answering" <b>' not in (root / "report.html").read_text("utf-8")


def test_script_and_style_cannot_be_closed_by_a_task_name(tmp_path):
    evil = "</script></style><img src=x onerror=alert(1)>"
    write_comparison(tmp_path, seeds=(0,), tasks=[*TASKS[:3], evil], records=20)
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert evil in page.sections["tasks"]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 1


def test_every_chart_and_table_has_a_name(page):
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("class") == "chart"]
    assert len(charts) == 6 + 3 + 1 + 1 + 1 + 1
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") == 6


def test_best_is_marked_only_beyond_the_ranges(root, tmp_path):
    marked = [
        attributes
        for _, attributes in Page(write_report(root).read_text("utf-8")).elements
        if attributes.get("class") == "best"
    ]
    assert len(marked) == 5  # adapt: macro, worst, J, tokens and FLOPs to uniform's best
    write_comparison(tmp_path, seeds=(0,))
    one_seed = Page(write_report(tmp_path).read_text("utf-8"))
    assert not [attributes for _, attributes in one_seed.elements if attributes.get("class") == "best"]
    assert "with one seed there is no range" in one_seed.sections["methods"]


def test_no_gain_is_called_no_gain(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "doremi", synthetic.SPEED["uniform"])  # as fast as the baseline, but for luck
    write_comparison(tmp_path, arms=("uniform", "proportional", "doremi"))
    said = verdict(load([tmp_path]))
    assert said.kind == "none"
    assert (
        said.headline
        == "No gain shown: no arm beats uniform, the best baseline, beyond the spread of seeds and examples."
    )


def test_a_method_that_does_worse_is_no_gain(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "doremi", 0.5)
    write_comparison(tmp_path, arms=("uniform", "doremi"))
    said = verdict(load([tmp_path]))
    assert said.kind == "none" and "ended below every other method" in said.headline
    assert "doremi never reached uniform’s best macro loss." in said.details


def test_one_seed_is_said_to_be_one_seed(tmp_path):
    write_comparison(tmp_path, seeds=(0,))
    said = verdict(load([tmp_path]))
    assert "(one seed)" in said.headline and any("luck" in sentence for sentence in said.details)


def test_a_gain_in_tokens_that_costs_more_flops_says_so_in_the_headline(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.META, "adapt", 1.5)
    write_comparison(tmp_path)
    assert re.search(r"but with 1\d\d % of its FLOPs", verdict(load([tmp_path])).headline)


def test_a_single_run_and_one_that_has_not_finished(tmp_path):
    write_run(tmp_path / "whole", "adapt")
    write_run(tmp_path / "part", "adapt", stop=0.43)
    whole, part = (Page(write_report(tmp_path / name).read_text("utf-8")) for name in ("whole", "part"))
    assert "adapt ended at macro loss" in whole.text and "Nothing to compare it with" in whole.text
    assert "adapt has not finished: 25.8k supervised tokens" in part.text
    assert "43 % of its budget spent" in part.sections["advice"] and "it resumes" in part.sections["advice"]
    assert "tokens" not in part.sections  # its mixture.json is not written yet


def test_a_run_without_validation_has_a_report(tmp_path):
    write_run(tmp_path, "adapt", validated=False)
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "was not validated" in page.sections["verdict"]
    assert "no curves to show" in page.sections["curves"]
    assert "never validated" in page.sections["advice"]


def test_a_run_killed_before_its_first_record_has_a_report(tmp_path):
    write_run(tmp_path, "adapt", stop=0.0, records=1)
    (tmp_path / "history.jsonl").unlink()
    (tmp_path / "ledger.json").unlink()
    assert "adapt has not finished: 0 supervised tokens" in Page(write_report(tmp_path).read_text("utf-8")).text


def test_unfinished_runs_stay_out_of_the_means(root, tmp_path):
    write_comparison(tmp_path, seeds=(0, 1))
    before = load([tmp_path]).arm("adapt").numbers["final"]
    write_run(tmp_path / "adapt" / "seed-2", "adapt", 2, stop=0.3)
    view = load([tmp_path])
    assert view.arm("adapt").numbers["final"] == before
    assert "Seed 2 has not finished, 30 % of its budget spent" in seen(view, "adapt")


def collapse(progress):
    first = min(0.97, 1 / len(TASKS) + 4 * progress)
    return {task: first if i == 0 else (1 - first) / (len(TASKS) - 1) for i, task in enumerate(TASKS)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"shares": collapse, "advice": {"narrowed": "Raise mixture.floor."}},
            r"n_eff fell to .* of 20 tasks at .*tokens. Raise mixture\.floor\.",
        ),
        ({"shares": collapse}, r"n_eff fell to .*tokens. See whether the other tasks can spare the draws"),
        (
            {"shares": lambda p: mixture("uniform", TASKS, p), "advice": {"still": "Lower mixture.noise."}},
            r"The mixture hardly moved.* Lower mixture\.noise\.",
        ),
        ({"shares": lambda p: mixture("uniform", TASKS, p)}, "The mixture hardly moved.*a plain baseline"),
        ({"rise": 1.0}, "Validation rose again .*overfits"),
        ({"padding": 0.45}, "45 % of the positions .* padding"),
        ({"limit": 600_000}, r"repeated more than 4 epochs: .*Set max_epochs"),
    ],
)
def test_what_looks_wrong_is_said_with_what_to_do(tmp_path, changes, expected):
    write_run(tmp_path / "wrong", "adapt", **changes)
    write_run(tmp_path / "right", "adapt")
    assert re.search(expected, seen(load([tmp_path / "wrong"]), "adapt"))
    assert not re.search(expected, seen(load([tmp_path / "right"]), "adapt"))


def test_a_mixture_that_trials_settled_may_stand_still(tmp_path):
    settled = {"narrowed": "Raise mixture.trial.", "behind": "Raise mixture.trial."}
    write_run(tmp_path / "settled", "mine:Own", advice=settled, plain=False)
    write_run(tmp_path / "stuck", "mine:Own", advice={**settled, "still": "Lower mixture.noise."}, plain=False)
    assert "hardly moved" in seen(load([tmp_path / "stuck"]), "mine:Own")
    assert "hardly moved" not in seen(load([tmp_path / "settled"]), "mine:Own")


@pytest.mark.parametrize(("plain", "baselines"), [(True, ["mine:Own", "uniform"]), (False, ["uniform"])])
def test_a_mixture_of_ones_own_is_a_baseline_if_it_says_so(tmp_path, plain, baselines):
    write_run(tmp_path / "uniform" / "seed-0", "uniform", records=10)
    write_run(tmp_path / "mine:Own" / "seed-0", "mine:Own", records=10, plain=plain)
    view = load([tmp_path])
    assert [arm.name for arm in view.arms if arm.numbers["baseline"]] == baselines
    assert ("hardly moved" in seen(view, "mine:Own")) is not plain


def test_runs_of_an_older_version_have_a_report(tmp_path):
    write_comparison(tmp_path, old=True)
    view = load([tmp_path])
    assert [arm.name for arm in view.arms if arm.numbers["baseline"]] == ["proportional", "uniform"]
    said = verdict(view)
    assert said.kind == "gain" and any("over 3 seeds alone" in sentence for sentence in said.details)
    assert "adapt" in Page(write_report(tmp_path).read_text("utf-8")).sections["methods"]


def test_plain_mixtures_are_not_told_to_move(root):
    assert "hardly moved" not in seen(load([root]), "uniform") and "narrowed" not in seen(load([root]), "proportional")


def test_tasks_left_worse_than_under_uniform_are_named(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), rise=0.0)
    for seed in (0, 1):
        write_run(tmp_path / "loss" / f"seed-{seed}", "loss", seed, rise=2.0)
    view = load([tmp_path])
    assert "20 tasks ended worse than under uniform" in seen(view, "loss")
    assert "worse than under uniform" not in seen(view, "adapt")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"limit": 30_000}, "budget (60,000 supervised tokens in uniform, 30,000 supervised tokens in adapt)"),
        ({"fingerprint": "other"}, "data (uniform against adapt)"),
        ({"recipe": {"tasks": {"max_length": 64}}}, "tasks.max_length (128 in uniform, 64 in adapt)"),
        ({"recipe": {"model": {"name": "other"}}}, "model (uniform against adapt)"),
        ({"counts": {"parity": 7}}, "validation examples (uniform against adapt)"),
    ],
)
def test_unequal_runs_get_no_verdict_and_no_shares_and_it_is_said_why(tmp_path, changes, named):
    for seed in (0, 1):
        write_run(tmp_path / "uniform" / f"seed-{seed}", "uniform", seed, records=20)
        write_run(tmp_path / "adapt" / f"seed-{seed}", "adapt", seed, records=20, **changes)
    paths = [tmp_path / arm / f"seed-{seed}" for arm in ("uniform", "adapt") for seed in (0, 1)]
    said = verdict(load(paths))
    assert said.kind == "unequal" and said.headline == f"No verdict: the runs differ in {named}."
    page = Page(write_report(paths, tmp_path / "report.html").read_text("utf-8"))
    assert named in page.sections["verdict"] and "under one budget" not in page.sections["verdict"].split(".")[0]
    assert "2 methods, not under the same conditions" in page.text
    assert not re.search(
        "to reach|best macro|of the tokens|★ [0-9]", page.sections["methods"] + page.sections["curves"]
    )
    assert not [attributes for _, attributes in page.elements if attributes.get("class") in ("best", "tiles")]
    assert "−" not in page.sections["tasks"]


def test_several_paths_make_one_report(root, tmp_path):
    write_run(tmp_path / "mine", "loss")
    out = write_report([root, tmp_path / "mine"], tmp_path / "all.html")
    assert out == tmp_path / "all.html"
    assert all(name in Page(out.read_text("utf-8")).sections["methods"] for name in ("uniform", "adapt", "loss"))
    with pytest.raises(ApportionError, match="Say which file"):
        write_report([root, tmp_path / "mine"])
    with pytest.raises(ApportionError, match="seed 0 of 'loss'"):
        write_report([tmp_path / "mine", tmp_path / "mine"], out)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ApportionError, match="not a comparison"):
        write_report(tmp_path)
    with pytest.raises(ApportionError, match="not a folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ApportionError, match="at least one"):
        write_report([])


def test_the_same_runs_give_the_same_page(root, tmp_path):
    assert write_report(root, tmp_path / "a.html").read_bytes() == write_report(root, tmp_path / "b.html").read_bytes()


def test_a_picture_is_one_small_valid_svg(root, tmp_path):
    from xml.etree import ElementTree

    out = picture(root, tmp_path / "picture.svg")
    assert out.stat().st_size < 100_000
    text = "".join(ElementTree.fromstring(out.read_text("utf-8")).itertext())
    assert "adapt reached uniform’s best" in text and "proportional" in text and "adapt: share of draws" in text
    with pytest.raises(ApportionError, match=r"\.svg"):
        picture(root, tmp_path / "picture.png")
    write_run(tmp_path / "blind", "adapt", validated=False)
    with pytest.raises(ApportionError, match="nothing to draw"):
        picture(tmp_path / "blind", out)


def weighed(ess):
    return lambda progress: {"mean": 0.6 + 0.1 * progress, "std": 0.1, "ess": ess}


def test_weights_are_shown_where_an_arm_weighs_and_only_there(root, page, tmp_path):
    assert "weights" not in page.sections
    write_run(tmp_path / "uniform" / "seed-0", "uniform")
    write_run(tmp_path / "adapt" / "seed-0", "adapt", weights=weighed(0.9))
    section = Page(write_report(tmp_path).read_text("utf-8")).sections["weights"]
    assert "Mean weight over training" in section and "Effective sample size over training" in section


def test_weights_that_tell_nothing_apart_are_pointed_out(tmp_path):
    write_run(tmp_path / "same", "adapt", weights=weighed(0.9996))
    write_run(tmp_path / "apart", "adapt", weights=weighed(0.97))
    assert "effective sample size was 99.96 %" in seen(load([tmp_path / "same"]), "adapt")
    assert "effective sample size" not in seen(load([tmp_path / "apart"]), "adapt")


def test_the_words_are_explained_where_they_stand(page):
    assert "Macro loss: the mean of the tasks’ validation losses" in page.sections["verdict"]
    for section in ("methods", "curves"):
        for term in ("Macro", "Worst", "J"):
            assert re.search(rf"{term} +(the|a) ", page.sections[section]), (section, term)
    assert "n_eff the effective number of tasks" in re.sub(" +", " ", page.sections["methods"])
    assert "meta what a method measures to steer by" in re.sub(" +", " ", page.sections["ledger"])


def test_counts_and_standard_errors_stand_beside_the_losses(root, page):
    run = load([root]).arm("adapt").shown
    assert f"± {run.errors['macro']:.3f}" in page.sections["methods"]
    assert f"± {run.errors['worst']:.3f}" in page.sections["methods"]
    assert re.search(r"addition\s+400k\s+20\s", page.sections["tasks"])
    assert re.search(r"copying\s+141k\s+32\s+[\d.]+\s+± 0\.\d", page.sections["tasks"])


def test_many_tasks_fold_their_table_and_say_how_many(tmp_path):
    tasks = [f"task-{i}" for i in range(40)]
    write_run(tmp_path, "uniform", tasks=tasks, records=10)
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "The table of all 40 tasks" in page.sections["tokens"] and "task-39" in page.sections["tokens"]


def test_a_gap_that_one_task_makes_is_no_headline_anywhere(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "adapt", synthetic.SPEED["uniform"])
    for seed in (0, 1, 2):
        write_run(tmp_path / "uniform" / f"seed-{seed}", "uniform", seed, records=20, counts={"parity": 1})
        changes = {"counts": {"parity": 1}, "shift": {"parity": -1.5}}
        write_run(tmp_path / "adapt" / f"seed-{seed}", "adapt", seed, records=20, **changes)
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "Not shown: adapt ended" in page.sections["verdict"] and "task parity" in page.sections["verdict"]
    assert "of its tokens" not in page.sections["verdict"] and "to uniform’s best" not in page.sections["verdict"]
    assert "of the tokens" not in page.sections["curves"]
    assert not [attributes for _, attributes in page.elements if attributes.get("class") == "best"]


def test_padding_that_several_arms_share_is_said_once(tmp_path):
    for arm, padding in (("adapt", 0.45), ("uniform", 0.35), ("loss", 0.1)):
        write_run(tmp_path / arm / "seed-0", arm, padding=padding)
    said = [advice for advice in advise(load([tmp_path])) if "padding" in advice.seen]
    assert [(advice.arm, advice.seen) for advice in said] == [
        ("", "35 % to 45 % of the positions computed in training were padding in 2 arms.")
    ]
