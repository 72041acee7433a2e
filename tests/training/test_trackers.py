"""What a tracker of Hugging Face's is told: every number of every record, read back from tensorboard's own files."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from tests.training.runs import history, run, weights

TRACKED = (
    "training.report_to=tensorboard",
    "targets.tasks={sort: 2, copy: 1}",
    "mixture={type: adapt, refresh: 3}",
    "weights=linupper",
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return run(tmp_path_factory.mktemp("tracked") / "arm" / "seed-0", *TRACKED)


@pytest.fixture(scope="module")
def scalars(tracked):
    """Each name's values by step, as tensorboard shows them."""
    (folder,) = {file.parent for file in tracked.path.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return {
        name.removeprefix("train/"): {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def named(record):
    """The numbers of a record of history.jsonl by the names that docs/recipes.md gives them."""
    plain = ("loss", "lr", "n_eff", "macro", "worst", "objective", "target", "others")
    found = {name: record[name] for name in plain if record.get(name) is not None}
    for block in ("mixture", "weights", "validation", "targets"):
        found |= {f"{block}/{name}": value for name, value in record.get(block, {}).items()}
    for account, columns in record["spent"].items():
        found |= {f"spent/{account}/{column}": columns[column] for column in ("supervised", "flops")}
    return found


def test_every_number_of_every_record_is_there(tracked, scalars):
    records = history(tracked)
    wanted = {}
    for record in records:
        for name, value in named(record).items():
            wanted.setdefault(name, {})[record["step"]] = value
    own = {name: values for name, values in scalars.items() if name in wanted}
    assert own.keys() == wanted.keys()
    for name, values in wanted.items():
        assert own[name] == pytest.approx(values, rel=1e-6), name
    for block in ("mixture/sort", "validation/sort", "targets/sort", "spent/train/flops", "spent/meta/flops", "target"):
        assert block in own
    assert {0, records[-1]["step"]} <= own["validation/sort"].keys()


def test_a_run_that_is_tracked_is_the_run_that_is_not(tracked, tmp_path):
    plain = run(tmp_path / "plain", *TRACKED[1:])
    bare = [[{**record, "seconds": 0} for record in history(of)] for of in (tracked, plain)]
    assert bare[0] == bare[1] and weights(tracked) == weights(plain)
