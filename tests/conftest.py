"""One thread a test process: tiny models gain nothing from more, and sums keep one order. Data lies beside the checkout."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # as the command line has it
os.environ.setdefault("APPORTION_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))

# What `make test-fast` leaves out: tests that train one model after another, start processes or read a whole collection.
# A file, or a test or a class of one; a new file is fast until it is named here.
SLOW = (
    "caches/test_flexicache.py",
    "cli/test_bad_recipes.py::test_a_typo_is_answered_before_anything_heavy_is_loaded",
    "cli/test_bad_recipes.py::test_what_is_unusual_and_right_is_planned_at_once",
    "cli/test_evaluate.py",
    "cli/test_export.py",
    "cli/test_folders.py",
    "cli/test_forcing.py",
    "cli/test_full_disk.py",
    "cli/test_init.py",
    "cli/test_output.py",
    "cli/test_processes.py",
    "cli/test_select.py",
    "cli/test_serving.py",
    "cli/test_watch.py",
    "contracts/test_caches.py",
    "contracts/test_selections.py",
    "contracts/test_spending.py",
    "decoding/test_engine.py",
    "evaluation/test_harness.py",
    "evaluation/test_sandbox.py",
    "exports/test_card.py",
    "exports/test_trl.py",
    "outsider/test_outsider.py",
    "plans/test_advice.py",
    "plans/test_api_reinforce.py",
    "plans/test_comparison_plan.py",
    "plans/test_cuts.py",
    "plans/test_evaluating.py",
    "plans/test_export.py",
    "plans/test_fit.py",
    "plans/test_forcing.py",
    "plans/test_generate.py",
    "plans/test_hypernet.py",
    "plans/test_init.py",
    "plans/test_plan.py",
    "plans/test_reinforce.py",
    "plans/test_selecting.py",
    "plans/test_selecting_stages.py",
    "plans/test_stages.py",
    "plans/test_targets.py",
    "plans/test_timing.py",
    "plans/test_warming.py",
    "recipes/test_recipes.py::test_a_recipe_of_reinforcement_runs_from_what_the_other_one_trains",
    "recipes/test_recipes.py::test_it_plans_at_tiny_size",
    "recipes/test_recipes.py::test_its_architecture_trains_at_tiny_size",
    "recipes/test_recipes.py::test_pretraining_supervises_every_token_of_the_corpus_once",
    "reports/test_browser.py",
    "reports/test_notebook.py::test_it_can_be_read_in_light_and_in_dark",
    "reports/test_watch.py",
    "signals/test_probed_gains.py::test_a_hypernetwork_can_be_probed",
    "signals/test_probed_gains.py::test_a_run_with_probes_that_change_nothing_is_the_run_without",
    "studies/test_tagi_data.py::TestNatural",
    "tasks/test_real_data.py",
    "test_examples.py",
    "test_studies.py",
    "test_upkeep.py::test_the_marker_goes_to_what_is_named_and_to_nothing_else",
    "training/test_adapters.py",
    "training/test_hypernet_run.py",
    "training/test_hypernet_stages.py",
    "training/test_packing.py",
    "training/test_ranks.py",
    "training/test_resume.py",
    "training/test_run.py",
    "training/test_trackers.py",
    "training/test_trials.py::test_stopped_in_a_trial_and_after_it_equals_never_stopped",
    "training/test_weights_runner.py",
    "weights/test_adapt.py",
    "weights/test_linupper.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as ``slow`` what `SLOW` names."""
    for item in items:
        place = item.nodeid.removeprefix("tests/")
        if any(place.startswith((f"{name}::", f"{name}[")) or place == name for name in SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what importing made: a Trainer has it look through everything after every run."""
    gc.collect()
    gc.freeze()
