"""Each kind of number that a report states, worked out again from the run folders' own files in a few literal lines."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from statistics import fmean, stdev, variance
from urllib.parse import unquote

import pytest

from apportion.reports import write_report
from apportion.reports.estimates import threshold
from apportion.reports.verdict import verdict
from apportion.reports.view import load
from tests.reports import synthetic
from tests.reports.synthetic import TASKS, evaluate_all, mixture, write_comparison, write_run

SEEDS = (0, 1, 2)
GOALS = {"legal": 3.0, "medical": 1.0}


class Tree(HTMLParser):
    """The page as a list of (text, open elements), and the rows of its tables by section."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pieces, self.rows, self.ids = [], [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "tr":
            self.rows.setdefault(self.section(), []).append([])
        if tag in ("td", "th") and self.section() in self.rows:
            self.rows[self.section()][-1].append("")
        if tag not in ("meta", "link", "br", "input"):
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.pieces.append((data, list(self.open)))
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[self.section()][-1][-1] += data

    def section(self):
        found = [attributes["id"] for tag, attributes in self.open if tag in ("section", "header")]
        return found[-1] if found else None

    def text(self, section):
        return "".join(data for data, held in self.pieces if any(a.get("id") == section for _, a in held))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return evaluate_all(write_comparison(tmp_path_factory.mktemp("claims") / "cmp", records=40))


@pytest.fixture(scope="module")
def page(root):
    return Tree(write_report(root).read_text("utf-8"))


@pytest.fixture(scope="module")
def goals(tmp_path_factory):
    arms, root = ("uniform", "upsample", "adapt"), tmp_path_factory.mktemp("goals") / "cmp"
    write_comparison(root, arms=arms, records=40, targets=GOALS)
    return root, Tree(write_report(root).read_text("utf-8"))


def read(root, arm, seed, name):
    return json.loads((root / arm / f"seed-{seed}" / name).read_text("utf-8"))


def history(root, arm, seed):
    lines = (root / arm / f"seed-{seed}" / "history.jsonl").read_text("utf-8").splitlines()
    return [record for line in lines if "macro" in (record := json.loads(line))]


def spent_to_best(root, arm, base, seed, spent):
    """What ``arm`` spent until it was down to ``base``'s best macro loss, as a share of what ``base`` spent on it."""
    best = min(history(root, base, seed), key=lambda record: record["macro"])
    points = [(spent(record), record["macro"]) for record in history(root, arm, seed)]
    (x0, y0), (x1, y1) = next(pair for pair in pairwise(points) if pair[1][1] <= best["macro"])
    return (x0 + (x1 - x0) * (y0 - best["macro"]) / (y0 - y1)) / spent(best)


def tokens(record):
    return record["spent"]["train"]["supervised"]


def flops(record):
    return sum(account["flops"] for name, account in record["spent"].items() if name != "evaluate")


def test_the_share_of_tokens_and_of_flops(root, page):
    for spent, sentence in (
        (tokens, "with {} of its tokens (3 seeds, {}–{})"),
        (flops, "took {} of uniform’s FLOPs (3 s"),
    ):
        shares = [100 * spent_to_best(root, "adapt", "uniform", seed, spent) for seed in SEEDS]
        mean, low, high = (f"{x:.0f}" for x in (fmean(shares), min(shares), max(shares)))
        assert sentence.format(f"{mean} %", low, f"{high} %") in page.text("verdict")


def test_whom_tokens_were_taken_from_and_given_to(root, page):
    def share(arm, task):
        return 100 * fmean(read(root, arm, seed, "mixture.json")["token_averaged"][task] for seed in SEEDS)

    moves = sorted((share("adapt", task) - share("uniform", task), task) for task in TASKS)
    whole = sum(abs(move) for move, _ in moves) / 2
    assert f"adapt moved {whole:.0f} % of uniform’s tokens" in page.text("verdict")
    said = re.search(r"it took them from (.*?), and gave them to (.*?)\.\n", page.text("verdict"))
    for side, named in zip(said.groups(), (moves[:3], moves[:-4:-1]), strict=True):
        for _, task in named:
            before, after = (
                f"{x:.0f} %" if x >= 9.95 else f"{x:.1f} %" for x in (share("uniform", task), share("adapt", task))
            )
            assert f"{task} ({before} to {after})" in side
    took = [task for move, task in moves if move <= -0.5]
    assert said[1].endswith(f"and {len(took) - 3} more")


def test_nothing_is_said_of_moves_where_nothing_moved(tmp_path):
    for arm in ("uniform", "adapt"):
        for seed in (0, 1):
            still = {"shares": lambda p: mixture("uniform", TASKS, p)} if arm == "adapt" else {}
            write_run(tmp_path / arm / f"seed-{seed}", arm, seed, records=20, **still)
    assert not any("moved" in sentence for sentence in verdict(load([tmp_path])).details)


def test_many_small_moves_are_not_named(tmp_path):
    tasks = [f"task-{i}" for i in range(300)]
    total = sum(range(1, 301))
    for arm, shares in (("uniform", [1 / 300] * 300), ("adapt", [i / total for i in range(1, 301)])):
        held = dict(zip(tasks, shares, strict=True))
        write_run(tmp_path / arm / "seed-0", arm, tasks=tasks, records=10, shares=lambda _, held=held: held)
    (said,) = [sentence for sentence in verdict(load([tmp_path])).details if "moved" in sentence]
    assert said.endswith("it took them from many tasks, a little each, and gave them to many tasks, a little each.")


def test_every_number_of_the_summary_leads_to_the_runs_it_is_of(page, goals):
    for tree in (page, goals[1]):
        links = []
        for data, held in tree.pieces:
            inside = [a for tag, a in held if tag in ("header", "p", "h1", "strong", "span")]
            if not any(a.get("id") == "verdict" for a in inside) or any(a.get("class") == "eyebrow" for a in inside):
                continue
            linked = [a for tag, a in held if tag == "a"]
            assert linked or not re.search(r"\d", data), f"'{data}' leads nowhere"
            links += linked
        assert len(links) > 10
        for link in links:
            arm = re.split(r", | and ", link["title"].removeprefix("the runs of "))[0]
            runs = "".join(d for d, held in tree.pieces if any(a.get("id") == link["href"][1:] for _, a in held))
            assert arm in runs and "summary.json" in runs


def test_the_table_of_runs(root, page):
    rows = [row for row in page.rows["runs"] if row[0] == "adapt"]
    assert [row[1] for row in rows] == ["0", "1", "2"]
    for seed, row in zip(SEEDS, rows, strict=True):
        summary = read(root, "adapt", seed, "summary.json")
        assert row[2] == f"{summary['final']['macro']:.3f}"
        assert row[3] == f"{summary['spent']['train']['supervised'] / 1000:.0f}k"
        assert row[4].startswith(f"{sum(a['flops'] for a in summary['spent'].values()) / 1e12:.1f}×10")
        files = ["summary", "mixture", "ledger", "validation", "evaluation"]
        assert set(row[6].split()) == {f"{name}.json" for name in files} | {"history.jsonl", "recipe.yaml"}


def test_links_lead_to_the_files_from_wherever_the_page_stands(root, tmp_path):
    out = tmp_path / "else where" / "page.html"
    out.parent.mkdir()
    text = write_report(root, out).read_text("utf-8")
    links = re.findall(r'href="([^"#]*\.(?:json|jsonl|yaml))"', text)
    assert len(links) == 9 * 7
    assert all((out.parent / unquote(link)).is_file() for link in links)


def gap(root, task, ours="adapt", base="uniform", seeds=SEEDS):
    """The change of a task's loss, its variance over seeds, that over examples, and how many examples there are."""
    held = [[read(root, arm, seed, "validation.json")["tasks"][task] for seed in seeds] for arm in (ours, base)]
    n = held[0][0]["supervised"]
    by_seed = [(sum(a["nll"]) - sum(b["nll"])) / sum(n) for a, b in zip(*held, strict=True)]
    each = [
        fmean(a["nll"][i] - b["nll"][i] for a, b in zip(*held, strict=True)) - fmean(by_seed) * n[i]
        for i in range(len(n))
    ]
    of_examples = len(n) / (len(n) - 1) * sum(x**2 for x in each) / sum(n) ** 2
    return fmean(by_seed), variance(by_seed) / len(seeds), of_examples, len(n)


def minus(text):
    return text.replace("-", "−")


def test_who_gains_and_who_loses(root, page):
    rows = page.rows["gains"][1:]
    assert [row[0] for row in rows] == sorted(TASKS, key=lambda task: gap(root, task)[0])
    for task, _, said in rows:
        change, of_seeds, of_examples, _ = gap(root, task)
        assert said == f"{minus(f'{change:+.3f}')} ± {math.sqrt(of_seeds + of_examples):.3f}"


def test_how_many_gain_and_how_many_of_them_beyond_chance(root, page):
    for arm in ("adapt", "proportional"):
        lower = higher = clear = dear = 0
        for task in TASKS:
            change, of_seeds, of_examples, n = gap(root, task, arm)
            freedom = (of_seeds + of_examples) ** 2 / (of_seeds**2 / 2 + of_examples**2 / (n - 1))
            beyond = abs(change) > threshold(freedom) * math.sqrt(of_seeds + of_examples)
            lower, clear = lower + (change < 0), clear + (change < 0 and beyond)
            higher, dear = higher + (change > 0), dear + (change > 0 and beyond)
        counted = [f" ({n} beyond chance)" if side else "" for side, n in ((lower, clear), (higher, dear))]
        said = f"{arm}: {lower} of 20 tasks ended lower{counted[0]}, {higher} higher{counted[1]}."
        assert said in page.text("gains")


def test_targets_come_first_among_those_who_gain(goals):
    root, tree = goals
    rows = tree.rows["gains"][1:]
    assert sorted(row[0] for row in rows[:2]) == ["legal target", "medical target"]
    assert "targets and tasks" in tree.text("gains")
    for row in rows[:2]:
        change, of_seeds, of_examples, _ = gap(root, row[0].removesuffix(" target"), base="upsample")
        assert row[2] == f"{minus(f'{change:+.3f}')} ± {math.sqrt(of_seeds + of_examples):.3f}"


def test_whether_the_money_was_well_spent(root, page):
    def drawn(arm, task):
        return fmean(read(root, arm, seed, "mixture.json")["tasks"][task]["supervised"] for seed in SEEDS)

    extra = {task: drawn("adapt", task) - drawn("uniform", task) for task in TASKS}
    gains = {task: -gap(root, task)[0] for task in TASKS}
    more = [task for task in TASKS if extra[task] > 0.05 * drawn("uniform", task)]
    fewer = [task for task in TASKS if extra[task] < -0.05 * drawn("uniform", task)]
    said = page.text("tokens")
    means = [fmean(gains[task] for task in side) for side in (more, fewer)]
    words = [f"{'gained' if mean >= 0 else 'lost'} {abs(mean):.3f}" for mean in means]
    assert (
        f"Tasks that got more tokens than under uniform ({len(more)}) {words[0]} on average; "
        f"those that got fewer tokens than under uniform ({len(fewer)}) {words[1]} on average." in said
    )
    bought = [
        1000 * sum(gains[task] for task in side) / sum(abs(extra[task]) for task in side) for side in (more, fewer)
    ]
    words = [f"{abs(worth):.3f} {'less' if worth >= 0 else 'more'}" for worth in bought]
    assert f"given went with {words[0]} loss in the task that got them, each thousand taken" in said
    assert f"taken away with {words[1]} loss in the task that lost them." in said


def test_what_only_one_side_did_is_said_of_that_side_alone(tmp_path):
    spared = mixture("uniform", TASKS, 0)
    spared |= {TASKS[0]: 2 * spared[TASKS[0]]} | {task: 0.96 * spared[task] for task in TASKS[1:]}
    for seed in (0, 1):
        write_run(tmp_path / "uniform" / f"seed-{seed}", "uniform", seed, records=10)
        write_run(tmp_path / "adapt" / f"seed-{seed}", "adapt", seed, records=10, shares=lambda _: spared)
    text = Tree(write_report(tmp_path).read_text("utf-8")).text("tokens")
    assert "Tasks that got more tokens than under uniform (1) gained" in text and "fewer tokens" not in text


def test_an_arm_that_learns_nothing_is_said_to_have_spent_as_the_baseline_did(tmp_path, monkeypatch):
    monkeypatch.setitem(synthetic.SPEED, "doremi", 1.4)
    write_comparison(tmp_path, arms=("uniform", "doremi"), seeds=(0, 1), records=10)
    text = Tree(write_report(tmp_path).read_text("utf-8")).text("tokens")
    assert "doremi gave every task about the tokens that uniform gave it." in text


def test_downstream_means_errors_and_differences(root, page):
    rows = {row[0]: row[1:] for row in page.rows["downstream"][1:]}
    name = "gsm8kexact_match, 50 examples"
    scores = {arm: [read(root, arm, s, "evaluation.json")["tasks"]["gsm8k"]["metrics"]["exact_match"] for s in SEEDS]
              for arm in ("proportional", "uniform", "adapt")}  # fmt: skip
    lines = {
        arm: [(root / arm / f"seed-{s}" / "evaluation" / "gsm8k.jsonl").read_text("utf-8").splitlines() for s in SEEDS]
        for arm in scores
    }
    each = {arm: [fmean(json.loads(held[i])["score"] for held in of) for i in range(50)] for arm, of in lines.items()}
    for cell, (arm, found) in zip(rows[name], scores.items(), strict=True):
        assert f"{fmean(s['value'] for s in found):.3f}" in cell
        assert f"± {fmean(s['error'] for s in found):.3f}" in cell
        if arm != "uniform":
            by_seed = [a["value"] - b["value"] for a, b in zip(found, scores["uniform"], strict=True)]
            paired = [a - b for a, b in zip(each[arm], each["uniform"], strict=True)]
            error = math.sqrt(variance(by_seed) / 3 + (stdev(paired) / math.sqrt(50)) ** 2)
            assert f"{minus(f'{fmean(by_seed):+.3f}')} ± {error:.3f}" in cell


def test_downstream_groups_are_means_of_sets_and_sets_of_tasks(root, page):
    def value(arm, seed, task):
        held = read(root, arm, seed, "evaluation.json")["tasks"][task]
        return held["metrics"][held["metric"]]["value"]

    rows = {row[0]: row[1:] for row in page.rows["downstream"][1:]}
    for place, arm in enumerate(("proportional", "uniform", "adapt")):
        bbh = [fmean(value(arm, seed, task) for task in ("bbh_dates", "bbh_words")) for seed in SEEDS]
        group = [(of_bbh + value(arm, seed, "gsm8k")) / 2 for seed, of_bbh in zip(SEEDS, bbh, strict=True)]
        assert f"{fmean(bbh):.3f}" in rows["bbhexact_match, 100 examples"][place]
        assert f"{fmean(group):.3f}" in rows["reasoningexact_match, 150 examples"][place]


def test_other_runs_give_other_numbers(page, tmp_path):
    """What the checks above look at comes from the runs: losses of other runs change it."""
    write_comparison(tmp_path / "cmp", arms=("uniform", "proportional"), records=40)
    write_comparison(tmp_path / "cmp", arms=("adapt",), records=40, shift=dict.fromkeys(TASKS[:5], 0.4))
    other = Tree(write_report(tmp_path / "cmp").read_text("utf-8"))
    assert other.rows["gains"] != page.rows["gains"] and other.text("tokens") != page.text("tokens")
    assert "downstream" not in other.rows and "samples" not in other.ids


def test_ids_are_there_once(page, goals):
    for tree in (page, goals[1]):
        assert len(set(tree.ids)) == len(tree.ids)
