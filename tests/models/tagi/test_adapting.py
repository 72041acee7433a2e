"""The model: the base at first, one adapter a task whatever else is in the batch, instructions read once."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from apportion._errors import ApportionError
from apportion.models.tagi.slots import given_now
from apportion.signals.losses import example_losses
from apportion.tasks.batches import collate
from tests.models.tagi.models import (
    EXAMPLES,
    FAMILIES,
    HEAD_NAMES,
    WAYS,
    alone,
    batch_of,
    make_base,
    make_tagi,
)


def changes(model, task=0):
    """Delta W^T of each slot."""
    factors = model.factors(model.reader.of([task]).pooled)
    return {name: (a[0] @ b[0]).detach() for name, (a, b) in factors.items()}


class TestStart:
    @pytest.mark.parametrize("head", HEAD_NAMES)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_is_the_base_and_every_slot_learns(self, family, head):
        model = make_tagi(family, head=head, fusion=True, stirred=False)
        batch = batch_of()
        with torch.no_grad():
            assert torch.equal(model(batch).logits, model.logits(batch, None))
        made = model.factors(model.reader.of([0, 1, 2]).pooled)
        pairs = {name: [factor.detach().requires_grad_() for factor in pair] for name, pair in made.items()}
        model.factors = lambda pooled: pairs
        example_losses(model, batch).sum().backward()
        for name, pair in pairs.items():
            # A factor's own way back to the generator is open as well.
            live = [
                f.grad_fn is not None and float(g.grad.abs().max()) > 0 for f, g in zip(made[name], pair, strict=True)
            ]
            assert any(live), name

    @pytest.mark.parametrize("head", HEAD_NAMES)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_few_steps_move_every_adapter_and_fusion(self, family, head):
        model = make_tagi(family, head=head, fusion=True, stirred=False)
        assert all(not change.any() for change in changes(model).values())
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        before = float(example_losses(model, batch_of()).detach().sum())
        for _ in range(4):
            optimizer.zero_grad()
            example_losses(model, batch_of()).sum().backward()
            optimizer.step()
        assert all(change.any() for change in changes(model).values())
        assert all(fusion.o.weight.any() for fusion in model.fusion.values())
        assert float(example_losses(model, batch_of()).detach().sum()) < before

    @pytest.mark.parametrize("head", HEAD_NAMES)
    @pytest.mark.parametrize("family", ["t5", "qwen3"])
    def test_slots_and_tasks_have_adapters_of_their_own(self, family, head):
        model = make_tagi(family, head=head, modules=["k", "v"] if family == "t5" else ["k_proj", "v_proj"])
        found = [change for task in (0, 1) for change in changes(model, task).values()]
        assert len(found) == 2 * len(model.slots) == (24 if family == "t5" else 8)
        for i, one in enumerate(found):
            assert all(not torch.allclose(one, other, rtol=0.01) for other in found[:i])


class TestBatches:
    @pytest.mark.parametrize("trained", ["frozen", "all"])
    @pytest.mark.parametrize(("family", "ways"), WAYS)
    def test_a_batch_of_tasks_is_a_loop_over_its_examples(self, family, ways, trained):
        model = make_tagi(family, dtype=torch.float64, base=trained, **ways)
        whole, parts = batch_of(), alone()
        # Norms of the bases work in fp32, which is as far as agreement goes.
        together = model(whole).logits.split([len(part.targets) for part in parts])
        for part, logits in zip(parts, together, strict=True):
            assert torch.allclose(model(part).logits, logits, atol=1e-6)
            assert not torch.allclose(model.logits(part, None), logits, atol=1e-2)

    @pytest.mark.parametrize(("family", "ways"), WAYS)
    def test_padding_of_inputs_and_instructions_does_not_matter(self, family, ways):
        # With a longer example and a longer instruction beside it.
        model = make_tagi(family, dtype=torch.float64, base="all", lengths=(5, 9, 30), **ways)
        beside = [*EXAMPLES[:1], (2, (EXAMPLES[3][1][0].repeat(3), EXAMPLES[3][1][1].repeat(3)))]
        longer, count = batch_of(beside), len(batch_of(EXAMPLES[:1]).targets)
        assert torch.allclose(model(batch_of(EXAMPLES[:1])).logits, model(longer).logits[:count], atol=1e-6)

    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_gradients_of_a_batch_are_the_sum_of_its_examples(self, head):
        model = make_tagi("llama", dtype=torch.float64, head=head, fusion=True)
        parameters = [p for p in model.parameters() if p.requires_grad]
        whole = torch.autograd.grad(example_losses(model, batch_of()).sum(), parameters)
        single = [torch.autograd.grad(example_losses(model, part).sum(), parameters) for part in alone()]
        for mine, *theirs in zip(whole, *single, strict=True):
            assert torch.allclose(mine, sum(theirs), atol=1e-6)

    def test_a_batch_without_examples_goes_through(self):
        # What a process has for a step in which its part is empty.
        empty = collate([], [], 0, [])
        for family in FAMILIES:
            for model in (make_tagi(family, kl=1.0, fusion=True).train(), make_tagi(family, stage="pretrain")):
                losses = example_losses(model, empty)
                assert losses.shape == (0,)
                losses.sum().backward()


class TestContext:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_nothing_stays_after_a_pass_or_an_error(self, family):
        model = make_tagi(family, fusion=True)
        batch = batch_of()
        plain, _ = model.logits(batch, None), model(batch)
        state = {name: sorted(vars(module)) for name, module in model.base.named_modules()}
        model(batch)
        failing = model.base.lm_head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("stop")))
        with pytest.raises(ValueError, match="stop"):
            model(batch)
        failing.remove()
        assert given_now() is None
        assert torch.equal(model.logits(batch, None), plain)
        assert {name: sorted(vars(module)) for name, module in model.base.named_modules()} == state

    def test_threads_do_not_see_each_others_adapters(self):
        model, batch = make_tagi("llama"), batch_of()
        expected, found = model.logits(batch, None), []
        thread = threading.Thread(target=lambda: found.append(model.logits(batch, None)))

        def meanwhile(*_):
            thread.start()
            thread.join()

        hook = model.base.lm_head.register_forward_pre_hook(lambda *_: meanwhile() if not thread.ident else None)
        adapted = model(batch).logits
        hook.remove()
        assert torch.equal(found[0], expected) and not torch.allclose(adapted, expected, atol=1e-3)


class TestReadingInstructions:
    def reads(self, model):
        """Count the rows that the model's own encoder reads without an adapter."""
        counted = []
        encoder = model.base.get_encoder() if model.config.is_encoder_decoder else model.base.get_decoder()

        def count(module, args, kwargs, output):
            if given_now() is None:
                counted.append(len(output.last_hidden_state))

        encoder.register_forward_hook(count, with_kwargs=True)
        return counted

    @pytest.mark.parametrize(("family", "ways"), WAYS)
    def test_once_a_task_where_the_base_stays_as_it_is(self, family, ways):
        model = make_tagi(family, **ways).train()
        counted = self.reads(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for batch in (*alone(), batch_of(), batch_of()):
            example_losses(model, batch).sum().backward()
            optimizer.step()
        model.reader.read_all()
        model.generate(batch_of().input_ids, batch_of().attention_mask, batch_of().tasks, max_new_tokens=2)
        assert sum(counted) == 3
        model.reader.instruct([ids[1:] for ids in model.reader.instructions])
        model(batch_of())
        assert sum(counted) == 6

    def test_every_step_where_it_is_trained(self):
        model = make_tagi("t5", base="all")
        counted = self.reads(model)
        for _ in range(2):
            model(batch_of())
        assert sum(counted) == 6 and model.reader.read_all() == 0

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("trained", ["frozen", "norms_and_embeddings", "all"])
    def test_gradients_go_through_it_where_it_is_trained(self, family, trained):
        model = make_tagi(family, base=trained)
        seen = model.reader.of([0])
        assert seen.pooled.requires_grad == (trained != "frozen")
        example_losses(model, batch_of()).sum().backward()
        moved = {name for name, p in model.base.named_parameters() if p.grad is not None and p.grad.any()}
        every = {name for name, _ in model.base.named_parameters()}
        if trained == "norms_and_embeddings":
            norms = {name for name in every if "norm" in name or "embed" in name or "shared" in name}
            assert moved == norms and 0 < len(norms) < len(every)
        else:
            assert moved == (every if trained == "all" else set())

    def test_dropout_does_not_get_into_what_is_kept(self):
        base = make_base("t5", dropout_rate=0.5)
        model = make_tagi("t5", on=base).train()
        model.reader.read_all()
        kept = {task: seen.pooled for task, seen in model.reader._read.items()}
        model.eval()
        model.reader.instruct(model.reader.instructions)
        model.reader.read_all()
        assert all(torch.equal(kept[task], seen.pooled) for task, seen in model.reader._read.items())


class TestRefusals:
    def test_a_base_of_another_family(self):
        from tests.tiny import tiny_model

        with pytest.raises(ApportionError, match=r"families t5, llama, qwen3, not 'gemma3_text'\.$"):
            make_tagi("llama", on=tiny_model("gemma3_text"))

    def test_memory_without_an_encoder(self):
        with pytest.raises(ApportionError, match=r"'kind\.memory' is for encoder-decoder models"):
            make_tagi("llama", memory=True)

    def test_a_module_that_is_not_there(self):
        with pytest.raises(ApportionError, match=r"names 'q_prj', no layer of the model \(did you mean 'q_proj'\?\)"):
            make_tagi("llama", modules=["q_prj"])

    @pytest.mark.parametrize("family", ["t5", "qwen3"])
    def test_a_head_that_is_the_embedding(self, family):
        with pytest.raises(ApportionError, match="names 'lm_head', whose weight is the embeddings' too"):
            make_tagi(family, modules=["lm_head"])

    def test_what_is_saved_is_what_is_trained(self):
        for trained in ("frozen", "norms_and_embeddings", "all"):
            model = make_tagi("qwen3", base=trained, fusion=True)
            wanted = {name for name, p in model.named_parameters() if p.requires_grad}
            assert set(model.state_dict()) == wanted
            other = make_tagi("qwen3", base=trained, fusion=True, stirred=False, on=make_base("qwen3"))
            nn.Module.load_state_dict(other, model.state_dict(), strict=False)
            assert torch.equal(other(batch_of()).logits, model(batch_of()).logits)
