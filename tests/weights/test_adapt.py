"""ADAPT weights: the fast version is the paper's algorithm, and only an example's own tokens count."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from apportion import weights as family
from apportion._errors import ApportionError
from apportion.plans.anchors import find_anchors
from apportion.plans.build import load_data, make_model, make_sampler
from apportion.plans.recipe import overridden, parse_recipe
from apportion.signals import Seen
from apportion.signals.hidden_states import last_states, members, of_examples
from apportion.tasks.batches import collate
from apportion.weights.adapt import position_weighted_mean, similarity, unit
from tests.references.adapt_weights import algorithm_1
from tests.tiny import ARCHITECTURES, tiny_model
from tests.training.runs import TINY, history, ledger, run
from tests.training.runs import weights as bytes_of

STEPS, BATCH, RATE = 20, 8, 0.1
SGD = (
    "training.optim=sgd",
    f"training.learning_rate={RATE}",
    "training.lr_scheduler_type=constant",
    "training.max_grad_norm=0",
)


def drawn(recipe, data):
    """The examples of the first steps, step by step, and the supervised tokens in them."""
    splits = [task.train for task in data.tasks.tasks]
    sampler = make_sampler(recipe, data, recipe.method())
    draws = [sampler.draw(np.full(len(splits), 1 / len(splits)), BATCH) for _ in range(STEPS)]
    steps = [[splits[task].example(index) for task, index in step] for step in draws]
    return steps, sum(int(splits[task].supervised[index]) for step in draws for task, index in step)


def plain(examples):
    return [(ids.tolist(), labels.tolist()) for ids, labels in examples]


@pytest.mark.parametrize(
    "settings",
    [
        {"tau": 1.0},
        {"tau": 0.1, "normalise": True, "centred": True, "positions": "completion", "refresh": 1},
        {"tau": 0.2, "positions": "prompt", "refresh": 6},
    ],
    ids=["paper", "mean form, centred", "prompts"],
)
def test_it_is_algorithm_1_over_twenty_steps(tmp_path, settings):
    settings = {"refresh": 7, **settings}
    block = {"type": "adapt", "anchors": 12, **settings}
    recipe = parse_recipe(overridden(TINY, [*SGD, f"weights={json.dumps(block)}"]))
    data = load_data(recipe)
    steps, tokens = drawn(recipe, data)
    done = run(tmp_path / "run", *SGD, f"weights={json.dumps(block)}", f"budget={tokens}")

    model = make_model(recipe, data)
    anchors = find_anchors(recipe.weighting().needs(), data, 96).picked
    expected = algorithm_1(
        model,
        [plain(step) for step in steps],
        plain(s.example(i) for _, s, i in anchors),
        learning_rate=RATE,
        **settings,
    )
    records = history(done)[1 : STEPS + 1]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    for record, w in zip(records, torch.tensor(expected, dtype=torch.float64), strict=True):
        assert record["weights"]["mean"] == pytest.approx(float(w.mean()), abs=1e-6)
        assert record["weights"]["std"] == pytest.approx(float(w.std(correction=0)), abs=1e-6)
        assert record["weights"]["ess"] == pytest.approx(float(w.sum() ** 2 / (len(w) * (w**2).sum())), abs=1e-6)
    trained, untrained = load(bytes_of(done)), make_model(recipe, data).state_dict()
    for name, tensor in model.state_dict().items():
        if name in trained:
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6)
            assert not torch.equal(trained[name], untrained[name]), name


def batch_of(seed=0, rows=None):
    generator = np.random.default_rng(seed)
    examples = []
    for length, prompt in ((5, 2), (17, 9), (11, 10), (8, 1)):
        ids = generator.integers(3, 60, length)
        examples.append((ids, np.where(np.arange(length) < prompt, -100, ids)))
    return collate(examples, [0] * len(examples), 0, rows)


def embedded(model, batch, positions="all"):
    with torch.no_grad(), last_states(model) as states:
        model(**batch.model_inputs)
    return family.Adapt().embed(of_examples(states[0], batch), members(batch, positions))


def padded_left(batch):
    """The same examples with the padding in front, as generation wants it."""
    rows, length = batch.input_ids.shape
    moved = {"input_ids": [], "attention_mask": [], "position_ids": []}
    start = torch.zeros(rows, dtype=torch.int64)
    for row in range(rows):
        own = int(batch.attention_mask[row].sum())
        start[row] = length - own
        for name, kept in moved.items():
            kept.append(torch.roll(getattr(batch, name)[row], length - own))
    positions = batch.positions + start[batch.examples]
    return replace(batch, positions=positions, **{name: torch.stack(kept) for name, kept in moved.items()})


@pytest.mark.parametrize("positions", ["all", "prompt", "completion"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_side_of_the_padding_and_what_is_packed_beside_do_not_matter(architecture, positions):
    model = tiny_model(architecture).eval()
    right = embedded(model, batch_of(), positions)
    left_batch = padded_left(batch_of())
    with torch.no_grad(), last_states(model) as states:
        model(**left_batch.model_inputs, position_ids=left_batch.position_ids)
    left = family.Adapt().embed(states[0], members(left_batch, positions))
    torch.testing.assert_close(left, right, rtol=0, atol=2e-6)
    packed = embedded(model, batch_of(rows=[[2, 0], [3, 1]]), positions)
    torch.testing.assert_close(packed, right, rtol=0, atol=2e-6)
    assert not torch.allclose(embedded(model, batch_of(seed=1), positions), right, atol=1e-3)


def test_position_weights_by_hand():
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0], [2.0, 0.0]]).expand(3, 4, 2)
    own = torch.tensor([[True, True, False, False], [False, False, False, True], [False] * 4])
    phi = position_weighted_mean(states, own)
    torch.testing.assert_close(phi, torch.tensor([[1 / 3, 2 / 3], [2.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(unit(phi)[2], torch.zeros(2))


def test_bf16_states_are_pooled_in_fp32():
    states = torch.randn(1, 300, 8).bfloat16()
    own = torch.ones(1, 300, dtype=torch.bool)
    torch.testing.assert_close(
        position_weighted_mean(states, own), position_weighted_mean(states.double(), own).float(), rtol=0, atol=1e-6
    )


def test_the_mean_anchor_gives_the_mean_cosine_and_centring_puts_anchors_at_zero():
    torch.manual_seed(0)
    anchors, examples = (unit(torch.randn(n, 16, dtype=torch.float64)) for n in (40, 7))
    scores = similarity(examples, anchors.mean(0), centred=False)
    cosines = torch.nn.functional.cosine_similarity(examples[:, None], anchors[None], dim=2).mean(1)
    torch.testing.assert_close(scores, cosines)
    assert float(similarity(anchors, anchors.mean(0), centred=True).mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("tau", [1e-3, 0.3, 1.0, 1e6])
def test_weights_rise_with_the_score_and_tau_flattens_them(tau):
    anchor = torch.tensor([1.0, 0.0])
    angles = torch.linspace(0, math.pi, 9)
    w = family.Adapt(tau=tau).weigh(Seen(embeddings=torch.stack([angles.cos(), angles.sin()], 1), anchor=anchor))
    assert bool((w[:-1] >= w[1:]).all()) and bool((w >= 0).all()) and bool((w <= 1).all())
    assert (float(w.std()) < 1e-6) == (tau == 1e6)


def test_anchors_are_embedded_once_every_refresh_steps_and_charged_to_validation(tmp_path):
    free = run(tmp_path / "free")
    done = run(tmp_path / "run", "weights={type: adapt, refresh: 4, anchors: 15}")
    recipe = parse_recipe(TINY)
    data = load_data(recipe)
    picked = find_anchors(family.Adapt(anchors=15).needs(), data, 96).picked
    one_pass = sum(int(split.processed[i]) for _, split, i in picked)
    records = history(done)
    steps = records[-1]["step"]
    spent, unspent = (ledger(each)["accounts"]["validation"] for each in (done, free))
    assert spent["processed"] - unspent["processed"] == -(-steps // 4) * one_pass
    assert spent["flops"] > unspent["flops"]
    assert ledger(done)["accounts"]["train"] == ledger(free)["accounts"]["train"]
    # Charged before the steps they serve, 1, 5, 9 and so on, and in no other.
    charged = np.diff([record["spent"]["validation"]["processed"] for record in records])
    between = [
        (int(charge), record) for charge, record in zip(charged, records[1:], strict=True) if "macro" not in record
    ]
    assert all(charge == (one_pass if record["step"] % 4 == 1 else 0) for charge, record in between)
    assert {record["step"] % 4 for _, record in between} == {0, 1, 2, 3}


def test_anchors_come_evenly_from_the_steering_halves():
    data = load_data(parse_recipe(TINY))
    picked = find_anchors(family.Adapt(anchors=45).needs(), data, 96).picked
    assert len(picked) == 45
    counts = np.bincount([task for task, _, _ in picked], minlength=20)
    assert all(
        count >= counts.max() - 1 or count == len(half) for count, half in zip(counts, data.held_out.steer, strict=True)
    )
    reported = {(id(split), i) for half in data.held_out.report for _, split, i in half}
    assert not {(id(split), i) for _, split, i in picked} & reported
    assert len({(id(split), i) for _, split, i in picked}) == 45


def test_anchors_from_files_are_used_and_counted(tmp_path):
    files = []
    for name, letter in (("a", "abc"), ("b", "xyz")):
        rows = [json.dumps({"prompt": f"say {letter}{n}", "completion": letter}) for n in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        files.append(str(tmp_path / f"{name}.jsonl"))
    data = load_data(parse_recipe(TINY))
    (tmp_path / "c.csv").write_text("prompt,completion\n" + "\n".join(f"say {n},c" for n in range(30)))
    table = family.Adapt(anchors=9, files=(*files, str(tmp_path / "c.csv")))
    assert [task for task, _, _ in find_anchors(table.needs(), data, 96).picked] == [0, 1, 2] * 3
    picked = find_anchors(family.Adapt(anchors=20, files=tuple(files)).needs(), data, 96).picked
    assert [task for task, _, _ in picked] == [0, 1] * 10
    done = run(tmp_path / "run", f"weights={{type: adapt, anchors: 20, files: {json.dumps(files)}}}")
    own = run(tmp_path / "own", "weights={type: adapt, anchors: 20}")
    assert history(done)[-1]["weights"] != history(own)[-1]["weights"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{type: adapt, tau: 1.0e-6}", r"All weights are 0 or 1: 'weights\.tau' is 1e-06"),
        ("{type: adapt, tau: 1.0e-6, centred: true, normalise: true}", r"'weights\.tau' is 1e-06, too small"),
        ("{type: adapt, tau: 0}", r"'weights\.tau' is 0: must be greater than 0"),
        ("{type: adapt, anchors: 0}", r"'weights\.anchors' is 0"),
        ("{type: adapt, files: []}", r"'weights\.files'.*at least one file"),
        ("{type: adapt, refresh: 0}", r"'weights\.refresh' is 0"),
        ("{type: adapt, positions: prompts}", r"'weights\.positions' is 'prompts'"),
        ("{type: adapt, file: [a.jsonl]}", r"Unknown key 'weights\.file' \(did you mean 'files'\?\)"),
        ("{type: adapt, files: [nowhere.jsonl]}", r"no file or folder 'nowhere\.jsonl'"),
        ("adpat", r"Unknown weights 'adpat' \(did you mean 'adapt'\?\)"),
        ("{tau: 1}", r"'weights' must be a mapping with a 'type'"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tmp_path, block, said):
    with pytest.raises(ApportionError, match=said):
        run(tmp_path / "run", f"weights={block}")


def test_a_file_without_an_anchor_is_refused_before_anything_is_written(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(ApportionError, match="holds no example"):
        run(tmp_path / "run", f"weights={{type: adapt, files: ['{empty}']}}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rows", [None, []])
def test_an_empty_batch_has_no_embedding(rows):
    """Where several processes share a step, one of them may be left without an example."""
    batch = collate([], [], 0, rows)
    states = torch.randn(*batch.input_ids.shape, 4)
    assert family.Adapt().embed(of_examples(states, batch), members(batch, "all")).shape == (0, 4)
