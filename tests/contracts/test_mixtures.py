"""What every mixture in the registry must do; a new one joins by being registered."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion import mixtures
from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES, Feedback, TaskSizes

SETTINGS = {"fixed": lambda names: {"shares": {name: (i + 1) / sum(range(len(names) + 1)) for i, name in names}}}


def build(name, tasks):
    numbered = [(int(task[4:]), task) for task in tasks.names]
    return MIXTURES.build({"type": name, **(SETTINGS[name](numbered) if name in SETTINGS else {})})


def make_tasks(count):
    sizes = torch.tensor([float(3 + 7 * i**2) for i in range(count)], dtype=torch.float64)
    # Every other task is a target.
    importance = (1.0 - torch.arange(count) % 2) * 3
    supervised = sizes * (5 + torch.arange(count) % 3)
    return TaskSizes(tuple(f"task{i}" for i in range(count)), sizes, supervised, importance.double())


def permuted(tasks, order):
    return TaskSizes(
        tuple(tasks.names[i] for i in order), tasks.examples[order], tasks.supervised[order], tasks.importance[order]
    )


finite = st.floats(0, 30, allow_nan=False)


@st.composite
def histories(draw, least=1):
    count = draw(st.integers(least, 6))
    length = draw(st.integers(0, 30))
    rows = st.lists(finite, min_size=count, max_size=count)
    signed = st.lists(st.floats(-5, 5, allow_nan=False), min_size=count, max_size=count)
    feedback = [
        Feedback(
            (step + 1) / (length + 1),
            losses=torch.tensor(draw(rows), dtype=torch.float64) if draw(st.booleans()) else None,
            alignment=torch.tensor(draw(signed), dtype=torch.float64) if draw(st.booleans()) else None,
            gains=torch.tensor(draw(signed), dtype=torch.float64) if draw(st.booleans()) else None,
            train_losses=torch.tensor(draw(rows), dtype=torch.float64) if draw(st.booleans()) else None,
        )
        for step in range(length)
    ]
    return make_tasks(count), feedback


def steered(tasks=5, steps=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tasks = make_tasks(tasks)

    def one(step):
        losses = torch.rand(len(tasks.names), generator=generator, dtype=torch.float64) * 3
        alignment = torch.randn(len(tasks.names), generator=generator, dtype=torch.float64)
        gains = torch.randn(len(tasks.names), generator=generator, dtype=torch.float64)
        trained = torch.rand(len(tasks.names), generator=generator, dtype=torch.float64) * 3
        trained[step % len(tasks.names)] = torch.nan  # one that the step did not draw
        return Feedback((step + 1) / (steps + 1), losses=losses, alignment=alignment, gains=gains, train_losses=trained)

    return tasks, [one(step) for step in range(steps)]


def after(mixture, tasks, feedback):
    state = mixture.init(tasks)
    for each in feedback:
        state = mixture.update(state, each)
    return state


def copied(state):
    return {key: value.clone() for key, value in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


every = pytest.mark.parametrize("name", list(MIXTURES))


@every
@given(histories())
@settings(max_examples=25, deadline=None)
def test_proportions_stay_on_the_simplex(name, history):
    tasks, feedback = history
    mixture = build(name, tasks)
    state = mixture.init(tasks)
    for each in [None, *feedback]:
        state = state if each is None else mixture.update(state, each)
        p = mixture.proportions(state)
        assert p.shape == (len(tasks.names),)
        assert (p.dtype, p.device.type, p.requires_grad) == (torch.float64, "cpu", False)
        assert bool((p >= 0).all()) and float(p.sum()) == pytest.approx(1, abs=1e-12)


@every
def test_one_task_gets_everything(name):
    tasks, feedback = steered(tasks=1)
    mixture = build(name, tasks)
    assert mixture.proportions(mixture.init(tasks)).tolist() == [1.0]
    assert mixture.proportions(after(mixture, tasks, feedback)).tolist() == [1.0]


@every
def test_calls_are_pure(name):
    tasks, feedback = steered()
    mixture = build(name, tasks)
    state = after(mixture, tasks, feedback[:6])
    before = copied(state)
    once = mixture.update(state, feedback[6])
    mixture.proportions(state)
    assert same(state, before)
    assert same(mixture.update(state, feedback[6]), once)
    once_before, losses_before = copied(once), feedback[6].losses.clone()
    mixture.update(once, feedback[7])
    assert same(once, once_before)
    assert torch.equal(feedback[6].losses, losses_before)


@every
def test_state_round_trips_through_a_checkpoint(name):
    tasks, feedback = steered()
    mixture = build(name, tasks)
    state = after(mixture, tasks, feedback[:6])
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert same(loaded, state)
    for each in feedback[6:]:
        state, loaded = mixture.update(state, each), mixture.update(loaded, each)
    assert same(loaded, state)
    assert torch.equal(mixture.proportions(loaded), mixture.proportions(state))


@every
@given(history=histories(least=2), data=st.data())
@settings(max_examples=25, deadline=None)
def test_permuting_tasks_permutes_results(name, history, data):
    tasks, feedback = history
    order = data.draw(st.permutations(range(len(tasks.names))))
    moved = [
        Feedback(
            f.progress,
            losses=None if f.losses is None else f.losses[list(order)],
            alignment=None if f.alignment is None else f.alignment[list(order)],
            gains=None if f.gains is None else f.gains[list(order)],
            train_losses=None if f.train_losses is None else f.train_losses[list(order)],
        )
        for f in feedback
    ]
    mixture = build(name, tasks)
    p = mixture.proportions(after(mixture, tasks, feedback))
    q = mixture.proportions(after(mixture, permuted(tasks, list(order)), moved))
    assert torch.allclose(q, p[list(order)], atol=1e-9)


@every
def test_unknown_setting_names_its_path_and_the_nearest(name):
    with pytest.raises(ApportionError, match=r"'mixture\.max_epoch' \(did you mean 'max_epochs'\?\)"):
        MIXTURES.build({"type": name, "max_epoch": 3, **({"shares": {"a": 1.0}} if name == "fixed" else {})})


@every
def test_what_it_follows_is_what_moves_it(name):
    # Long enough for a bandit, which first explores all alike.
    tasks, feedback = steered(tasks=4, steps=30)
    mixture = build(name, tasks)
    start = mixture.proportions(mixture.init(tasks))

    def moved(**measured):
        return not torch.equal(
            start, mixture.proportions(after(mixture, tasks, [Feedback(**m) for m in measured["of"]]))
        )

    losses = moved(of=[{"progress": f.progress, "losses": f.losses} for f in feedback])
    alignment = moved(of=[{"progress": f.progress, "alignment": f.alignment} for f in feedback])
    gains = moved(of=[{"progress": f.progress, "gains": f.gains} for f in feedback])
    trained = moved(of=[{"progress": f.progress, "train_losses": f.train_losses} for f in feedback])
    reads = {signal.reads for signal in mixture.needs()}
    by_training = any(type(signal).__name__ == "TrainLosses" for signal in mixture.needs())
    by_gradients = bool(reads & {"backward", "gradients"})
    # The validation pass measures both.
    by_losses = by_gradients or ("losses" in reads and not by_training)
    assert mixture.plain == (not reads and not mixture.ask(tasks, Path("trials")))
    nothing = moved(of=[{"progress": f.progress} for f in feedback])
    wanted = (by_losses, by_gradients, "steps" in reads, by_training, False)
    assert (losses, alignment, gains, trained, nothing) == wanted


@every
def test_is_an_attribute_of_the_family_under_its_class_name(name):
    cls = MIXTURES.get(name)
    assert getattr(mixtures, cls.__name__) is cls
    assert cls.__name__ in mixtures.__all__
    assert cls.__name__.lower() == name
    assert "What it optimises:" in cls.__doc__ and "Cost" in cls.__doc__


def test_unknown_mixture_names_the_nearest():
    with pytest.raises(ApportionError, match=r"Unknown mixture 'propotional' \(did you mean 'proportional'\?\)"):
        MIXTURES.build("propotional")
    with pytest.raises(AttributeError, match="Adpat"):
        _ = mixtures.Adpat


def test_a_class_of_ones_own_is_named_by_its_import_path():
    built = MIXTURES.build({"type": "apportion.mixtures.adapt:Adapt", "floor": 0.3})
    assert built == mixtures.Adapt(floor=0.3)


@pytest.mark.parametrize(
    "path", ["nowhere:Mine", "apportion.mixtures.adapt:Adpat", "os:system", ":Mine", "apportion.mixtures.adapt:"]
)
def test_an_import_path_to_no_mixture_is_refused(path):
    with pytest.raises(ApportionError, match=f"'{path}' is no mixture: "):
        MIXTURES.build(path)


def test_naming_the_family_does_not_load_torch():
    code = "import sys, apportion.mixtures as m; list(m.MIXTURES); m.__all__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@every
def test_advice_names_keys_of_the_method_only_and_is_there_where_something_is_measured(name):
    method = MIXTURES.get(name)
    signs = {"narrowed", "still", "swings", "behind"}
    settled = not method.plain and not method().needs()  # by trials: meant to stand still
    assert set(method.advice) == (set() if method.plain else signs - {"still"} if settled else signs)
    for said in method.advice.values():
        named = re.findall(r"mixture\.(\w+)", said)
        assert named and set(named) <= set(method.model_fields)
