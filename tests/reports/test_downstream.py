"""Downstream scores: what stands in the table, what is averaged into what, and when one is called the best."""

import json
import math

import pytest

from apportion._errors import ApportionError
from apportion.reports import write_report
from apportion.reports.downstream import table
from apportion.reports.samples import samples
from apportion.reports.view import load
from tests.reports import synthetic
from tests.reports.synthetic import BENCHMARKS, evaluate, evaluate_all, write_comparison, write_run
from tests.reports.test_claims import Tree


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return evaluate_all(write_comparison(tmp_path_factory.mktemp("downstream"), records=10))


@pytest.fixture
def arms(tmp_path):
    """Write some arms without scores."""
    return write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), records=10)


def rows(found):
    return {
        row.name: (row, dict(zip([arm.name for arm in found.arms], cells, strict=True))) for row, cells in found.rows
    }


def answers(folder, task):
    return [json.loads(line) for line in (folder / "evaluation" / f"{task}.jsonl").read_text("utf-8").splitlines()]


def test_without_scores_there_is_no_table(arms):
    assert table(load([arms])) is None and samples(load([arms])) == []
    assert "downstream" not in Tree(write_report(arms).read_text("utf-8")).ids


def test_groups_come_first_with_their_sets_below(root):
    found = table(load([root]))
    assert [(row.name, row.kind) for row, _ in found.rows] == [
        ("reasoning", "group"), ("bbh", "set"), ("gsm8k", "set"), ("arc", "alone"), ("wikitext", "alone"),
    ]  # fmt: skip
    assert found.reference == "uniform"
    assert [row.examples for row, _ in found.rows] == [150, 100, 50, 80, 20]


def test_the_mean_is_of_all_groups_sets_and_says_what_it_leaves_out(arms):
    evaluate_all(arms, groups={"reasoning": ["bbh", "gsm8k"], "knowledge": ["arc"]})
    found = table(load([arms]))
    row, cells = rows(found)["mean of the groups’ sets"]
    assert row.kind == "macro" and sum(row.tasks.values()) == pytest.approx(1)
    bbh, gsm8k, arc = (rows(found)[name][1]["adapt"] for name in ("bbh", "gsm8k", "arc"))
    assert float(cells["adapt"].text) == pytest.approx(
        sum(float(cell.text) for cell in (bbh, gsm8k, arc)) / 3, abs=0.002
    )
    assert found.notes == [
        "Lower is better for wikitext: it is averaged with no score that is better when higher.",
        "Sets have different metrics (acc, exact_match); each counts alike in a mean.",
    ]


def test_without_groups_the_mean_is_of_all_sets_unless_one_is_better_when_lower(arms):
    evaluate_all(arms, groups={})
    assert "mean of all sets" not in rows(table(load([arms])))
    evaluate_all(arms, groups={}, tasks={name: task for name, task in BENCHMARKS.items() if task[3]})
    assert rows(table(load([arms])))["mean of all sets"][0].examples == 230


def test_a_group_of_both_ways_has_no_mean(arms):
    evaluate_all(arms, groups={"both": ["bbh", "wikitext"], "reasoning": ["gsm8k", "arc"]})
    assert [(row.name, row.kind) for row, _ in table(load([arms])).rows] == [
        ("bbh", "alone"), ("wikitext", "alone"), ("reasoning", "group"), ("gsm8k", "set"), ("arc", "set"),
    ]  # fmt: skip


def test_lower_is_better_where_the_task_says_so(root):
    row, cells = rows(table(load([root])))["wikitext"]
    assert row.rises is False and float(cells["adapt"].text) < float(cells["uniform"].text)
    assert cells["adapt"].shade < 0 and cells["adapt"].note.split("; ")[-1].startswith("−")
    _, cells = rows(table(load([root])))["bbh"]
    assert cells["adapt"].shade < 0 and cells["adapt"].note.split("; ")[-1].startswith("+")


def test_the_best_is_marked_beyond_two_errors_and_not_within_them(arms, monkeypatch):
    evaluate_all(arms)
    assert rows(table(load([arms])))["reasoning"][1]["adapt"].best
    monkeypatch.setitem(synthetic.SKILL, "adapt", synthetic.SKILL["uniform"] + 0.01)
    evaluate_all(arms)
    assert not any(cell.best for _, cells in table(load([arms])).rows for cell in cells)


def test_one_seed_and_unlike_runs_are_marked_nowhere(tmp_path):
    evaluate_all(write_comparison(tmp_path / "one", arms=("uniform", "adapt"), seeds=(0,), records=10))
    assert not any(cell.best for _, cells in table(load([tmp_path / "one"])).rows for cell in cells)
    for arm, limit in (("uniform", 60_000), ("adapt", 30_000)):
        write_comparison(tmp_path / "unlike", arms=(arm,), seeds=(0, 1), records=10, limit=limit)
    found = table(load([evaluate_all(tmp_path / "unlike")]))
    assert found.reference == "" and not any(cell.best or cell.shade for _, cells in found.rows for cell in cells)


def test_errors_are_paired_by_example_and_else_those_of_two_scores(arms):
    evaluate_all(arms)
    paired = rows(table(load([arms])))["gsm8k"][1]["adapt"].note
    for file in arms.glob("*/seed-*/evaluation/*.jsonl"):
        file.unlink()
    apart = rows(table(load([arms])))["gsm8k"][1]["adapt"].note
    assert paired.rpartition(" ± ")[0] == apart.rpartition(" ± ")[0] and paired != apart
    held = [
        json.loads((arms / f"{arm}/seed-{s}/evaluation.json").read_text("utf-8"))
        for arm in ("adapt", "uniform")
        for s in (0, 1)
    ]
    scores = [record["tasks"]["gsm8k"]["metrics"]["exact_match"] for record in held]
    gaps = [scores[0]["value"] - scores[2]["value"], scores[1]["value"] - scores[3]["value"]]
    errors = [(scores[0]["error"] + scores[1]["error"]) / 2, (scores[2]["error"] + scores[3]["error"]) / 2]
    error = math.sqrt((gaps[0] - gaps[1]) ** 2 / 4 + errors[0] ** 2 + errors[1] ** 2)
    assert apart.endswith(f"± {error:.3f}")


def test_answers_under_other_ids_are_not_paired(arms):
    evaluate_all(arms)
    before = rows(table(load([arms])))["gsm8k"][1]["adapt"].note
    file = arms / "adapt" / "seed-1" / "evaluation" / "gsm8k.jsonl"
    file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    assert rows(table(load([arms])))["gsm8k"][1]["adapt"].note != before


def test_a_seed_without_scores_is_said_to_be_missing(arms):
    for seed in (0, 1):
        evaluate(arms / "uniform" / f"seed-{seed}", "uniform", seed)
    evaluate(arms / "adapt" / "seed-0", "adapt", 0)
    _, cells = rows(table(load([arms])))["bbh"]
    assert "1 of 2 seeds" in cells["adapt"].note and "seeds" not in cells["uniform"].note


def test_scores_that_were_not_measured_alike_are_not_compared(arms):
    evaluate_all(arms)
    file = arms / "uniform" / "seed-1" / "evaluation.json"
    record = json.loads(file.read_text("utf-8"))
    record["tasks"]["gsm8k"]["settings"] = {"shots": 5}
    file.write_text(json.dumps(record), "utf-8")
    found = table(load([arms]))
    assert found.notes[0].endswith("on reasoning, gsm8k: compare nothing there.")
    for name, compared in (("gsm8k", False), ("reasoning", False), ("bbh", True)):
        cell = rows(found)[name][1]["adapt"]
        assert ("±" in cell.note, bool(cell.shade)) == (compared, compared) and (compared or not cell.best)


def test_the_harness_names_of_metrics_are_read_as_people_call_them(arms):
    named = {"arc": ("arc", "acc,none", 20, True, False), "bbh": ("bbh", "exact_match,answer", 20, True, True)}
    evaluate_all(arms, tasks=named, groups={})
    assert [row.metric for row, _ in table(load([arms])).rows] == ["acc", "exact_match (answer)", "several"]


def test_a_score_that_is_no_number_is_a_dash(arms):
    evaluate_all(arms)
    file = arms / "adapt" / "seed-0" / "evaluation.json"
    record = json.loads(file.read_text("utf-8"))
    record["tasks"]["gsm8k"]["metrics"]["exact_match"] = {"value": None, "error": None}
    file.write_text(json.dumps(record), "utf-8")
    (arms / "adapt" / "seed-1" / "evaluation.json").unlink()
    _, cells = rows(table(load([arms])))["gsm8k"]
    assert cells["adapt"].text == "–" and cells["uniform"].text != "–"
    assert Tree(write_report(arms).read_text("utf-8")).rows["downstream"]


def test_answers_that_cannot_be_read_end_in_a_sentence(arms):
    evaluate_all(arms)
    (arms / "adapt" / "seed-0" / "evaluation" / "gsm8k.jsonl").write_text("{\n", "utf-8")
    with pytest.raises(ApportionError, match=r"gsm8k\.jsonl"):
        write_report(arms)


def test_a_single_run_has_its_scores_and_nothing_to_compare_them_with(tmp_path):
    write_run(tmp_path, "adapt", records=10)
    evaluate(tmp_path, "adapt")
    found = table(load([tmp_path]))
    assert not any(cell.note or cell.best or cell.shade for _, (cell,) in found.rows)
    assert "difference" not in Tree(write_report(tmp_path).read_text("utf-8")).text("downstream")


def test_samples_are_of_generated_tasks_and_differ_first(root):
    found = samples(load([root]))
    # Of each set one comes before a second one does; what is only told apart by likelihood has no answers to show.
    assert [of.task for of in found] == ["bbh_dates", "gsm8k", "bbh_words"]
    for of in found:
        assert len(of.samples) == 3
        for sample in of.samples:
            assert len({written.score for written in sample.answers}) > 1
            for written in sample.answers:
                line = answers(root / written.arm.name / "seed-0", of.task)[sample.id]
                assert (written.text, written.score) == (line["answer"], f"score {line['score']:g}")
                assert sample.reference == line["reference"] and line["prompt"].endswith(sample.prompt[1:])
            assert sample.prompt.startswith("…") and len(sample.prompt) == 700


def test_samples_on_the_page_are_text_and_never_markup(root):
    text = write_report(root).read_text("utf-8")
    page = Tree(text)
    assert "<i>" in page.text("samples") and "says" in page.text("samples") and "</details>" in page.text("samples")
    assert "<i>0</i>" not in text and "<b>what</b>" not in text


def test_long_answers_and_many_tasks_are_cut(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0,), records=10)
    tasks = {f"t{i}": (f"s{i}", "exact_match", 10, True, True) for i in range(9)}
    evaluate_all(tmp_path, tasks=tasks, groups={})
    for file in tmp_path.glob("*/seed-0/evaluation/*.jsonl"):
        lines = [json.loads(line) | {"answer": "long " * 10_000} for line in file.read_text("utf-8").splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    found = samples(load([tmp_path]))
    assert len(found) == 6
    assert {len(written.text) for of in found for sample in of.samples for written in sample.answers} == {400}
    assert write_report(tmp_path).stat().st_size < 1_000_000


def test_scores_measured_in_training_are_drawn(tmp_path):
    write_comparison(tmp_path, arms=("uniform", "adapt"), seeds=(0, 1), records=10)
    for file in tmp_path.glob("*/seed-*/history.jsonl"):
        records = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        scored = [record | {"evaluation": {"gsm8k": 0.1 * i}} for i, record in enumerate(records)]
        file.write_text("".join(json.dumps(record) + "\n" for record in scored), "utf-8")
    page = Tree(write_report(tmp_path).read_text("utf-8"))
    assert "Score of gsm8k over training" in page.text("downstream")
