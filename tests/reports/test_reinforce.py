"""The page on reinforcement: what it says is in the files, no gain is called one, and a part of a run is enough for it."""

import io
import json
import re
import threading
import urllib.request

import pytest
from rich.console import Console

from apportion._errors import ApportionError
from apportion.reports import picture, reinforce_table, verdict_on, write_report
from apportion.reports.rl import figures, tables
from apportion.reports.rl.arms import after, arrange, before
from apportion.reports.rl.rollouts import places, rollouts
from apportion.reports.view import gathered, read_folders
from apportion.reports.watch import server
from apportion.runs import read_rollouts, read_run
from apportion.runs.schema import dump_file
from apportion.runs.thinking import area, interval, tokens_to
from tests.reports.reinforced import BUDGETS, PROMPTS, said, write_arms, write_reinforced
from tests.reports.synthetic import write_run
from tests.reports.test_report import Page

SECTIONS = {"verdict", "asked", "answers", "training", "rollouts", "ledger", "runs", "recipes"}


def page_of(*paths, out=None):
    return Page(write_report(paths[0] if len(paths) == 1 else paths, out).read_text("utf-8"))


def view_of(*paths):
    return arrange(gathered(read_folders(paths)))


def flat(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_reinforced(tmp_path_factory.mktemp("rl") / "brpo")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_arms(tmp_path_factory.mktemp("rl"), steps=20)


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


def test_the_top_says_what_the_files_say(run, page):
    summary = said(run, "summary.json")
    found = verdict_on(run)
    assert found.kind == "gain"
    assert found.headline == (
        "brpo, uniform, trained toward thinking budgets of 8, 16, 32 and 48 tokens, gets more right at 16 and 32 tokens."
    )
    overlap, took, pairs, areas = found.details
    assert (
        overlap
        == "No gain is shown at 8 and 48 tokens and without a limit: the 95 % intervals before and after overlap."
    )
    flops = sum(account["flops"] for account in summary["spent"].values())
    assert took.startswith("It generated 88.2k of 90k tokens in 40 steps") and f"{flops / 1e12:.1f}×10¹²" in took
    for budget in BUDGETS:
        first, last = (summary[key]["accuracy"][str(budget)] for key in ("first", "final"))
        ends = [f"{summary[key]['used'][str(budget)]:.1f}".removesuffix(".0") for key in ("first", "final")]
        assert f"at {budget} {first:.3f} → {last:.3f} with {' → '.join(ends)} tokens" in pairs
    ends = [summary[key]["natural"] for key in ("first", "final")]
    assert f"without a limit {ends[0]['accuracy']:.3f} → {ends[1]['accuracy']:.3f}" in pairs
    assert areas.endswith(f"{summary['first']['area']:.3f} → {summary['final']['area']:.3f}.")
    for sentence in (found.headline, *found.details):
        assert sentence in flat(page.text)


def test_the_table_has_accuracy_interval_tokens_and_share_cut_off(run):
    summary, curve = said(run, "summary.json"), said(run, "curve.json")
    view = view_of(run)
    assert tables.columns(view) == [
        "Area",
        "Budget 8",
        "Budget 16",
        "Budget 32",
        "Budget 48",
        "No limit",
        "Tokens at 0.9 right",
    ]
    for row, name, key in zip(tables.answers(view), ("before", "after"), ("first", "final"), strict=True):
        of_name = [cell for cell in curve["cells"] if cell["name"] == name]
        assert row.name == name and row.cells[0].text == f"{summary[key]['area']:.3f}"
        for shown, cell in zip(row.cells[1:], of_name, strict=False):
            low, high = interval(cell["score"], cell["error"], PROMPTS)
            used, cut = f"{cell['used']:.1f}".removesuffix(".0"), f"{100 * cell['forced']:.0f} % cut off"
            assert shown.text == f"{cell['score']:.3f}"
            assert shown.notes == (f"{low:.2f}–{high:.2f}", f"{used} tokens", cut)
        natural = summary[key]["natural"]
        line = [*((cell["used"], cell["score"]) for cell in of_name), (natural["used"], natural["accuracy"])]
        assert row.cells[-1].text == f"{tokens_to(line, 0.9):.1f}".removesuffix(".0")


def test_charts_are_drawn_over_tokens_that_were_used_and_generated(run):
    view, curve, history = view_of(run), said(run, "curve.json"), said(run, "history.jsonl")
    lines = figures.lines(view)
    assert [line.name for line in lines] == ["before", "after brpo, uniform"]
    for line, name in zip(lines, ("before", "after"), strict=True):
        measured = [(cell["used"], cell["score"]) for cell in curve["cells"] if cell["name"] == name]
        assert set(measured) <= set(line.mean) and len(line.mean) == len(BUDGETS) + 1
        assert all("budget" in text or "no limit" in text for text in line.said)
    charts = figures.training_charts(view)
    names = ("reward", "correct", "thinking", "forced")
    assert [re.search(r"<title>(\w+) over", chart)[1].lower() for chart in charts] == list(names)
    points = json.loads(re.search(r'data-hover="([^"]*)"', charts[2])[1].replace("&#34;", '"'))["series"][0]["points"]
    wanted = [f"{record['thinking']:.1f}".removesuffix(".0") for record in history if "thinking" in record]
    assert [point[3] for point in points] == wanted
    assert points[-1][2] == "88.2k"


def test_no_gain_is_called_no_gain(tmp_path):
    found = verdict_on(write_reinforced(tmp_path / "grpo", "grpo", verbose=0.48))
    assert found.kind == "none"
    assert found.headline == (
        "grpo, trained toward a thinking budget of 48 tokens, shows no gain: "
        "at every budget the 95 % intervals before and after overlap."
    )
    assert not any("No gain" in sentence for sentence in found.details)


def test_a_loss_is_called_one_and_is_no_gain(tmp_path):
    path = write_reinforced(tmp_path / "x", verbose=0.95)
    found = verdict_on(path)
    assert found.kind == "none" and "gets fewer right at 8, 16 and 32 tokens." in found.headline
    curve = said(path, "curve.json")
    curve["cells"][4] |= {"score": 0.9, "error": 0.02}  # 8 tokens, after
    (path / "curve.json").write_text(dump_file(curve))
    found = verdict_on(path)
    assert found.kind == "none"
    assert "gets more right at 8 tokens and gets fewer right at 16 and 32 tokens." in found.headline


def test_the_ledger_has_generated_tokens_by_kind_and_account(run, page):
    accounts = said(run, "ledger.json")["accounts"]
    text = flat(page.sections["ledger"])
    assert "Thinking Answer Inserted" in text
    for name in ("generate", "validation"):
        kinds = [accounts[name][kind] for kind in ("thinking", "answer", "inserted")]
        assert " ".join(f"{n / 1000:.3g}k" if n else "–" for n in kinds) in text
    for word in ("runs/sft", "90k generated tokens", "format 0.2", "summaries 4"):
        assert word in flat(page.sections["asked"])


def test_rollouts_read_as_they_were_cut(run, page):
    lines = read_rollouts(run)
    shown = rollouts(view_of(run))
    assert [of.step for of in shown] == [1, 20, 40] and [len(of.rollouts) for of in shown] == [3, 3, 3]
    for of in shown:
        for line, rollout in zip([each for each in lines if each["step"] == of.step], of.rollouts, strict=True):
            assert (
                rollout.prompt == line["prompt"] and "".join(part.text for part in rollout.segments) == line["thinking"]
            )
            assert not rollout.guessed and f"reward {line['reward']:.3g}" in rollout.place
            start, most = 0, max(map(abs, line["advantages"]))
            for part, advantage in zip(rollout.segments, line["advantages"], strict=False):
                cut = int(part.cut.split(",")[0])
                assert part.text == line["thinking"][start:cut] and part.shade == advantage / most
                assert part.advantage == f"{advantage:+.3f}".replace("-", "−")
                start = cut
            for cut, at in zip(line["cuts"], rollout.cuts, strict=True):
                times = [int(re.match(r"(\d+) times", worth)[1]) if "times" in worth else 1 for _, worth in at.answers]
                assert sum(times) == len(cut["answers"]) and {answer for answer, _ in at.answers} == set(cut["answers"])
                assert at.reward == f"mean reward {sum(cut['rewards']) / 4:.3g}"
    text = flat(page.sections["rollouts"])
    assert (
        "sums<0>" in text and "✂ 8" in text and "4 times, reward 1" in text and "by its share of the tokens" not in text
    )


def test_places_of_cuts_are_worked_out_where_the_file_has_none(tmp_path):
    path = write_reinforced(tmp_path / "old", steps=4, measured=1, old=True)
    whole = read_rollouts(write_reinforced(tmp_path / "new", steps=4, measured=1))
    for line, known in zip(read_rollouts(path), whole, strict=True):
        assert places(line)[0] == [cut["at"] for cut in known["cuts"]]  # its tokens are equally long
    assert "by its share of the tokens" in flat(page_of(path).sections["rollouts"])


def test_long_thinking_is_shown_from_both_ends(tmp_path):
    path = write_reinforced(tmp_path / "x", steps=1, measured=1)
    line = said(path, "rollouts.jsonl")[0]
    line |= {"thinking": "a" * 5000 + "</script>" + "b" * 5000, "prompt": "<b>" * 2000, "advantages": []}
    line["cuts"] = [{"budget": 8, "answers": [], "rewards": [], "at": 20_000}]
    (path / "rollouts.jsonl").write_text(json.dumps(line) + "\n")
    ((shown,),) = [of.rollouts for of in rollouts(view_of(path))]
    assert [len(part.text) for part in shown.segments] == [803] and len(shown.prompt) == 700
    assert "</script>" not in shown.segments[0].text and shown.cuts[0].reward == "no reward"
    assert len((write_report(path)).read_text()) < 60_000


def test_arms_are_compared_by_mean_and_range_over_seeds(root):
    page, view = page_of(root), view_of(root)
    runs = {name: [read_run(root / name / f"seed-{seed}") for seed in (0, 1, 2)] for name in ("brpo", "grpo")}
    ends = {name: [run.summary["final"]["area"] for run in of_arm] for name, of_arm in runs.items()}
    found = verdict_on(root)
    assert found.kind == "gain"
    for name, values in ends.items():
        mean = f"{sum(values) / 3:.3f}"
        assert f"{name} {mean} ({min(values):.3f}–{max(values):.3f})" in found.headline
    rows = {row.name: row for row in tables.answers(view)}
    assert list(rows) == ["before", "brpo", "grpo"]
    for name, of_arm in runs.items():
        for place, budget in enumerate(BUDGETS, 1):
            scores = [run.summary["final"]["accuracy"][str(budget)] for run in of_arm]
            used = sum(run.summary["final"]["used"][str(budget)] for run in of_arm) / 3
            assert rows[name].cells[place].text == f"{sum(scores) / 3:.3f}"
            assert f"{used:.1f}".removesuffix(".0") + " tokens" in rows[name].cells[place].notes
        tokens = [tokens_to(after(run).places, 0.9) for run in of_arm]
        assert rows[name].cells[-1].text == f"{sum(tokens) / 3:.1f}".removesuffix(".0")
        assert f"{min(tokens):.1f}–{max(tokens):.1f}" in rows[name].cells[-1].notes
    lines = {line.name: line for line in figures.lines(view)}
    means = [sum(run.summary["final"]["accuracy"][str(b)] for run in runs["brpo"]) / 3 for b in BUDGETS]
    assert [y for _, y in lines["brpo"].mean][:4] == pytest.approx(means)
    assert {attributes.get("id") for _, attributes in page.elements} >= SECTIONS | {"runs-1", "runs-2"}
    assert "brpo, step 20, seed 0" in flat(page.sections["rollouts"])


def test_overlapping_ranges_and_one_seed_show_nothing(tmp_path):
    alike = {"a": ("brpo", 0.3), "b": ("grpo", 0.3)}
    found = verdict_on(write_arms(tmp_path / "alike", arms=alike, steps=4, measured=1))
    assert found.kind == "none" and "their ranges over seeds overlap" in found.headline
    found = verdict_on(write_arms(tmp_path / "one", seeds=(0,), steps=4, measured=1))
    assert found.kind == "none" and "with one seed luck is not known" in found.headline


def test_seeds_of_one_arm_are_held_against_their_start(tmp_path):
    write_arms(tmp_path / "x", arms={"brpo": ("brpo", 0.1)}, steps=4, measured=1)
    found = verdict_on(tmp_path / "x")
    assert found.kind == "gain" and "3 seeds: area 0.838 → 0.9" in found.headline
    write_arms(tmp_path / "y", arms={"grpo": ("grpo", 0.5)}, steps=4, measured=1)
    found = verdict_on(tmp_path / "y")
    assert found.kind == "none" and "no gain that is shown" in found.headline


def test_before_is_the_mean_over_the_models_that_runs_began_with(tmp_path):
    for seed, ops in ((0, 6), (1, 4)):
        path = write_reinforced(tmp_path / "x" / f"seed-{seed}", seed=seed, steps=2, measured=1, ops=ops)
        (path / "recipe.yaml").write_text((path / "recipe.yaml").read_text().replace("runs/sft", f"runs/sft-{seed}"))
    view = view_of(tmp_path)
    scores = [said(run.path, "summary.json")["first"]["accuracy"]["16"] for run in view.runs]
    assert scores[0] != scores[1] and view.start.at(16).score == sum(scores) / 2
    assert view.start.at(16).span == (min(scores), max(scores))
    assert "runs/sft-0, runs/sft-1" in flat(page_of(tmp_path).sections["asked"])


def test_runs_given_one_by_one_go_by_their_names(tmp_path):
    paths = [write_reinforced(tmp_path / kind, kind, steps=4, measured=1) for kind in ("brpo", "grpo")]
    page = page_of(*paths, out=tmp_path / "both.html")
    assert "Reinforcement: 2 arms, 2 runs" in page.text and "brpo, uniform" in page.sections["answers"]
    write_reinforced(tmp_path / "again", "brpo", steps=4, measured=1)
    with pytest.raises(ApportionError, match="Two of the runs are seed 0 of 'brpo, uniform'"):
        write_report([*paths, tmp_path / "again"], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_runs_that_differ_get_no_verdict(tmp_path):
    paths = [
        write_reinforced(tmp_path / k, k, steps=4, measured=1, limit=n) for k, n in (("brpo", 1000), ("grpo", 2000))
    ]
    found = verdict_on(paths)
    assert found.kind == "unequal" and "1,000 generated tokens in brpo, uniform" in found.headline


def test_training_and_reinforcement_do_not_stand_on_one_page(tmp_path):
    write_run(tmp_path / "sft", "adapt", records=5)
    path = write_reinforced(tmp_path / "rl", steps=2, measured=1)
    with pytest.raises(
        ApportionError, match=r"rl' is a run of reinforcement and '.*sft' is none: give them to two reports"
    ):
        write_report([tmp_path / "sft", path], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
    with pytest.raises(ApportionError, match="is a run of reinforcement: `apportion report` shows it"):
        picture(path, tmp_path / "out.svg")


@pytest.mark.parametrize(
    ("changes", "section", "sentence"),
    [
        ({"without": ["rollouts.jsonl"]}, "rollouts", "No run has kept roll-outs"),
        ({"stop": 0.5}, "verdict", "has not finished"),
        ({"stop": 0.5, "without": ["ledger.json", "rollouts.jsonl"]}, "verdict", "It generated"),
        ({"stop": 0.0}, "training", "There are fewer than two records yet"),
        ({"stop": 0.5, "measured": 99}, "verdict", "has not finished"),
        ({"without": ["curve.json"]}, "verdict", "gets more right at 16 and 32 tokens"),
        ({"without": ["curve.json", "history.jsonl"]}, "verdict", "without standard errors"),
        ({"without": ["curve.json", "history.jsonl"]}, "training", "There are fewer than two records yet"),
        ({"stop": 0.5, "without": ["history.jsonl", "ledger.json"]}, "answers", "No run has measured its answers yet."),
    ],
)
def test_a_part_of_a_run_is_enough_for_a_page(tmp_path, changes, section, sentence):
    page = page_of(write_reinforced(tmp_path / "x", **changes))
    assert {attributes.get("id") for _, attributes in page.elements} >= SECTIONS
    assert sentence in flat(page.sections[section])


def test_an_unfinished_run_says_how_far_it_has_come(tmp_path):
    path = write_reinforced(tmp_path / "x", stop=0.5)
    history, run = said(path, "history.jsonl"), read_run(path)
    first, last = (record["curve"] for record in (history[0], history[20]))
    assert [point.score for point in before(run).points] == first["accuracy"]
    assert [point.score for point in after(run).points] == last["accuracy"] and after(run).area == last["area"]
    assert f"{first['area']:.3f} → {last['area']:.3f}" in " ".join(verdict_on(path).details)


def test_the_area_is_worked_out_where_no_file_has_it(tmp_path):
    path = write_reinforced(tmp_path / "x")
    summary = said(path, "summary.json")
    for key in ("first", "final"):
        del summary[key]["area"]
    (path / "summary.json").write_text(dump_file(summary))
    cells = [cell for cell in said(path, "curve.json")["cells"] if cell["name"] == "after"]
    assert after(read_run(path)).area == area([(cell["used"], cell["score"]) for cell in cells], 48)


def printed(path):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(reinforce_table(read_run(path)))
    return console.file.getvalue()


def test_the_terminals_table_fits_eighty_columns(run, tmp_path):
    text, summary = printed(run), said(run, "summary.json")
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for budget in BUDGETS:
        first, last = (summary[key]["accuracy"][str(budget)] for key in ("first", "final"))
        line = next(line for line in text.splitlines() if f" {budget} │" in line)
        assert f"{first:.3f} → {last:.3f}" in line and ("more right" if budget in (16, 32) else "no gain") in line
    assert f"{summary['first']['area']:.3f} → {summary['final']['area']:.3f}" in text
    assert "88.2k generated tokens in 40 steps, 0:44" in text
    killed = printed(write_reinforced(tmp_path / "x", stop=0.0))
    assert "area under accuracy: 0.838 → –" in killed


def test_a_page_that_is_watched_links_to_the_rollouts(run):
    with server([run], 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            here = f"http://127.0.0.1:{serving.server_port}/"
            with urllib.request.urlopen(here) as answer:
                page = answer.read().decode()
            link = re.search(r'href="([^"]*rollouts\.jsonl)"', page)[1]
            with urllib.request.urlopen(here + link) as answer:
                assert answer.read().decode() == (run / "rollouts.jsonl").read_text()
        finally:
            serving.shutdown()
            thread.join()
