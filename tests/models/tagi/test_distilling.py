"""What training adds to each example's loss: the KL to a teacher that reads the instruction, the distance to a LoRA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from apportion.models.tagi.slots import giving
from apportion.signals.losses import example_losses, example_nll
from apportion.tasks.batches import collate
from apportion.tasks.encoded import IGNORED
from tests.models.tagi.models import EXAMPLES, FAMILIES, SMALL, alone, batch_of, make_base, make_tagi


def by_hand(model, examples):
    """The batch that a person would write for the teacher: instruction, input and labels in one text."""
    rows = []
    for task, (ids, labels) in examples:
        head = model.reader.instructions[task].numpy()
        marks = [*[IGNORED] * len(head), *labels.tolist()]
        rows.append(([*head.tolist(), *ids.tolist()], marks))
    pairs = [(torch.tensor(ids).numpy(), torch.tensor(marks).numpy()) for ids, marks in rows]
    return collate(pairs, [task for task, _ in examples], 0)


def representable(model, seed=5):
    """Factors of the model's rank for each slot, scale folded in."""
    generator = torch.Generator().manual_seed(seed)
    rank, found = model.spec.r, {}
    for slot in model.slots:
        a = torch.randn(slot.d_in, rank, generator=generator) / slot.d_in**0.5
        found[slot.name] = (a, torch.randn(rank, slot.d_out, generator=generator) / rank**0.5)
    return found


class TestTeacher:
    @pytest.mark.parametrize("trained", ["frozen", "norms_and_embeddings"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_base_is_its_own_and_reads_the_instruction_in_the_text(self, family, trained):
        model = make_tagi(family, kl=1.0, base=trained)
        plain = model.logits(by_hand(model, EXAMPLES), None)
        assert torch.allclose(model.distiller.teacher_logits(batch_of()), plain, atol=1e-6)
        assert not torch.allclose(plain, model.logits(batch_of(), None), atol=1e-2)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_is_the_base_as_it_was_whatever_training_makes_of_it(self, family):
        model = make_tagi(family, kl=1.0, base="norms_and_embeddings")
        before, answers = model.distiller.teacher_logits(batch_of()), model(batch_of()).logits
        for parameter in (p for p in model.base.parameters() if p.requires_grad):
            with torch.no_grad():
                parameter.add_(0.3 * torch.randn_like(parameter))
        assert torch.equal(model.distiller.teacher_logits(batch_of()), before)
        assert not torch.allclose(model(batch_of()).logits, answers, atol=1e-2)
        # Of what is not trained there is one copy, and nothing of the teacher is trained or saved.
        kept = dict(model.distiller.teacher.named_parameters())
        for name, parameter in model.base.named_parameters():
            if name.replace("base.", "") in kept:
                assert (kept[name] is parameter) == (not parameter.requires_grad)
        assert not any(parameter.requires_grad for parameter in kept.values())
        assert not any("teacher" in name for name in model.state_dict())

    def test_start_tokens_are_not_doubled(self):
        model = make_tagi("llama", kl=1.0)
        bos = model.config.bos_token_id
        model.reader.instruct([torch.cat([ids.new_tensor([bos]), ids]) for ids in model.reader.instructions])
        opened = []
        for task, (ids, labels) in EXAMPLES:
            opened.append((task, (np.array([bos, *ids[1:]]), labels)))
        # By hand, the second start token goes.
        rows = []
        for task, (ids, labels) in opened:
            head = model.reader.instructions[task].numpy()
            joint = torch.tensor([*head.tolist(), *ids[1:].tolist()]).numpy()
            rows.append((joint, torch.tensor([*[IGNORED] * (len(head) - 1), *labels.tolist()]).numpy()))
        longer = collate(rows, [task for task, _ in opened], 0)
        opened = [(task, pair) for (task, pair) in opened if (pair[1] != IGNORED).argmax() > 1]
        expected = model.logits(longer, None)[[int(e) in kept_rows() for e in longer.examples]]
        assert torch.allclose(model.distiller.teacher_logits(batch_of(opened)), expected, atol=1e-6)

    def test_dropout_does_not_reach_the_teacher_and_the_student_keeps_it(self):
        model = make_tagi("t5", kl=1.0, on=make_base("t5", dropout_rate=0.5)).train()
        assert torch.equal(model.distiller.teacher_logits(batch_of()), model.distiller.teacher_logits(batch_of()))
        assert model.base.training and all(module.training for module in model.base.modules())

    def test_no_gradient_and_no_place_in_what_is_saved(self):
        teacher = make_base("llama", seed=9)
        model = make_tagi("llama", kl=1.0, on=make_base("llama"))
        model.distiller._teacher = teacher
        names = {name for name, _ in model.named_parameters()}
        model.train()
        example_losses(model, batch_of()).sum().backward()
        assert all(p.grad is None for p in teacher.parameters())
        assert len(names) == len(dict(make_tagi("llama").named_parameters()))
        other = make_tagi("llama", on=teacher)
        assert torch.allclose(
            model.distiller.teacher_logits(batch_of()), other.logits(by_hand(model, EXAMPLES), None), atol=1e-6
        )


def kept_rows():
    """The examples with more context than a start token."""
    return {k for k, (_, (_, labels)) in enumerate(EXAMPLES) if (labels != IGNORED).argmax() > 1}


class TestPenalty:
    @pytest.mark.parametrize("standardise", [False, True])
    def test_kl_is_nothing_where_student_and_teacher_agree(self, standardise):
        # Reading nothing before the input, the untrained student is the teacher.
        model = make_tagi("llama", kl=3.0, standardise=standardise, stirred=False, temperature=2.0).train()
        model.reader.instruct([torch.tensor([1])] * 3)
        opened = [(task, (pair[0].copy(), pair[1])) for task, pair in EXAMPLES]
        for _, (ids, _) in opened:
            ids[0] = 1
        assert torch.allclose(model(batch_of(opened)).penalty, torch.zeros(len(opened)), atol=1e-6)
        model.reader.instruct([torch.tensor([1, 9])] * 3)
        assert (model(batch_of(opened)).penalty > 1e-5).all()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_is_lambda_times_the_kl_of_each_example(self, family):
        model = make_tagi(family, kl=0.7, temperature=1.5).train()
        output = model(batch_of())
        teacher = F.log_softmax(model.logits(by_hand(model, EXAMPLES), None) / 1.5, -1)
        apart = (teacher.exp() * (teacher - F.log_softmax(output.logits / 1.5, -1))).sum(-1) * 1.5**2
        expected = torch.stack([apart[batch_of().examples == k].mean() for k in range(len(EXAMPLES))])
        assert torch.allclose(output.penalty, 0.7 * expected, rtol=1e-4)
        single = torch.cat([model(part).penalty for part in alone()])
        assert torch.allclose(output.penalty, single, rtol=1e-4)

    def test_it_is_part_of_the_training_loss_and_of_no_measurement(self):
        model, batch = make_tagi("llama", kl=0.7), batch_of()
        sums, counts = example_nll(model, batch)
        assert torch.equal(example_losses(model, batch), sums / counts) and model(batch).penalty is None
        model.train()
        assert torch.allclose(example_losses(model, batch), sums / counts + model(batch).penalty)
        assert make_tagi("llama", kl=0.0).train()(batch).penalty is None
        assert make_tagi("llama", kl=1.0, stage="pretrain", base="all").train()(batch_of(EXAMPLES[:2])).penalty is None


class TestAlignment:
    @pytest.mark.parametrize("alignment", ["delta_w", "factors"])
    def test_nothing_for_a_perfect_target_and_one_for_no_adapter(self, alignment):
        model = make_tagi("qwen3", alignment=alignment, ins=1.0).train()
        made = model.factors(model.reader.of([0, 1]).pooled)
        # What the first task's adapter is; for the third task there is no teacher.
        mine = {n: (a[0].detach(), model.spec.scale * b[0].detach()) for n, (a, b) in made.items()}
        model.distiller.targets = {0: mine, 1: representable(model)}
        penalty = model(batch_of()).penalty
        assert [task for task, _ in EXAMPLES] == [0, 2, 1, 0]
        assert torch.allclose(penalty[[0, 1, 3]], torch.zeros(3), atol=1e-6) and penalty[2] > 0.1
        if alignment == "delta_w":
            model = make_tagi("qwen3", ins=1.0, stirred=False).train()
            model.distiller.targets = {0: mine, 1: representable(model), 2: representable(model, 6)}
            assert torch.allclose(model(batch_of()).penalty, torch.ones(4))

    def test_the_weight_and_the_kl_beside_it(self):
        model = make_tagi("llama", ins="sigmoid", kl=0.5).train()
        without = model(batch_of()).penalty
        model.distiller.targets = dict.fromkeys(range(3), representable(model))
        both = model(batch_of()).penalty
        seen = model.reader.of([0, 1, 2])
        factors = model.factors(seen.pooled)
        l_ins = torch.stack([model.distiller.distance(task, task, factors) for task, _ in EXAMPLES])
        assert torch.allclose(both, without + torch.sigmoid(l_ins) * l_ins, rtol=1e-5)

    @pytest.mark.parametrize("head", ["per_layer", "shared_index", "module_depth"])
    def test_a_representable_teacher_is_recovered(self, head):
        torch.manual_seed(0)
        spec = SMALL | {"hidden": 32, "r": 2, "head": head, "ins": 1.0}
        model = make_tagi("llama", stirred=False, lengths=(5,), **spec).train()
        model.distiller.targets = {0: representable(model)}
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=1e-2)
        seen = model.reader.of([0])
        for step in range(1000):
            loss = model.distiller.distance(0, 0, model.factors(seen.pooled))
            if loss < 1e-6:
                break
            optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 ** (step // 150)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 1e-6
        # The adapted base is then the base with the teacher's LoRA, to the eye of its logits.
        target = {name: (a[None], b[None] / model.spec.scale) for name, (a, b) in model.distiller.targets[0].items()}
        given = model.given(seen, torch.zeros(1, dtype=torch.long))
        part = batch_of(EXAMPLES[:1])
        with torch.no_grad():
            mine = model.logits(part, given)
            with giving(type(given)(target, given.scale, given.rows)):
                assert torch.allclose(
                    model.base(**part.model_inputs).logits.flatten(0, 1)[part.positions], mine, atol=0.02
                )
