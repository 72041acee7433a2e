import pytest
import torch

from apportion._errors import ApportionError
from apportion.mixtures import MIXTURES
from apportion.mixtures._mixture import TaskSizes


def sizes(*examples, supervised=None, names=None, importance=None):
    return TaskSizes(
        names or tuple("abcdefgh"[: len(examples)]),
        torch.tensor(examples, dtype=torch.float64),
        torch.tensor(supervised or examples, dtype=torch.float64),
        torch.tensor(importance or [1.0] * len(examples), dtype=torch.float64),
    )


def p_of(spec, tasks):
    mixture = MIXTURES.build(spec)
    return mixture.proportions(mixture.init(tasks))


def close(p, wanted, atol=1e-12):
    return torch.allclose(p, torch.tensor(wanted, dtype=torch.float64), atol=atol)


def test_uniform():
    assert close(p_of("uniform", sizes(1, 1000, 5)), [1 / 3] * 3)


def test_proportional_by_examples_or_supervised_tokens():
    tasks = sizes(1, 3, supervised=[30, 10])
    assert close(p_of("proportional", tasks), [0.25, 0.75])
    assert close(p_of({"type": "proportional", "by": "supervised"}, tasks), [0.75, 0.25])


def test_temperature_by_hand_and_at_its_limits():
    tasks = sizes(1, 100, supervised=[400, 100])
    assert close(p_of({"type": "temperature", "t": 2}, tasks), [1 / 11, 10 / 11])
    assert close(p_of({"type": "temperature", "t": 2, "by": "supervised"}, tasks), [2 / 3, 1 / 3])
    assert close(p_of({"type": "temperature", "t": 1}, tasks), p_of("proportional", tasks).tolist())
    assert close(p_of({"type": "temperature", "t": 1e12}, tasks), [0.5, 0.5], atol=1e-9)
    assert close(p_of({"type": "temperature", "t": 1e-4}, tasks), [0, 1])


@pytest.mark.parametrize("t", [0, -1, float("nan"), float("inf"), "hot"])
def test_temperature_must_be_positive(t):
    with pytest.raises(ApportionError, match=r"'mixture\.t'"):
        MIXTURES.build({"type": "temperature", "t": t})


def test_fixed_goes_by_name_and_may_leave_a_task_out():
    assert close(p_of({"type": "fixed", "shares": {"c": 0.3, "a": 0.7, "b": 0}}, sizes(1, 2, 3)), [0.7, 0, 0.3])


def test_fixed_rounding_is_mended():
    third = 0.3333333
    p = p_of({"type": "fixed", "shares": dict.fromkeys("abc", third)}, sizes(1, 2, 3))
    assert float(p.sum()) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("shares", [{"a": 0.33, "b": 0.33, "c": 0.33}, {"a": 0.5, "b": 0.5, "c": 0.01}])
def test_fixed_shares_of_two_digits_are_rescaled_and_say_so(shares):
    method = MIXTURES.build({"type": "fixed", "shares": shares})
    total = sum(shares.values())
    assert method.findings() == (f"'mixture.shares' sums to {total:.6g}: rescaled to sum to 1.",)
    assert close(
        p_of({"type": "fixed", "shares": shares}, sizes(1, 2, 3)), [share / total for share in shares.values()]
    )
    exact = {name: share / total for name, share in shares.items()}
    assert MIXTURES.build({"type": "fixed", "shares": exact}).findings() == ()


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"a": 0.5, "b": 0.48}, r"'mixture\.shares' sums to 0\.98: shares must sum to 1, within 1 %"),
        ({"a": 0.5, "b": 0.52}, r"'mixture\.shares' sums to 1\.02"),
        ({"a": 0.5, "b": 0.4}, r"'mixture\.shares' sums to 0\.9"),
        ({"a": 1.5, "b": -0.5}, r"'mixture\.shares\.a' is 1\.5"),
        ({"a": 1, "b": -1e-9}, r"'mixture\.shares\.b' is -1e-09"),
        ({"a": float("nan"), "b": 1}, r"'mixture\.shares\.a' is nan"),
        ({}, "sums to 0"),
        ({"a": "half", "b": 0.5}, r"'mixture\.shares\.a' is 'half'"),
    ],
)
def test_fixed_shares_that_are_no_distribution(shares, sentence):
    with pytest.raises(ApportionError, match=sentence):
        MIXTURES.build({"type": "fixed", "shares": shares})


def test_fixed_must_name_every_task_and_no_other():
    tasks = sizes(1, 1, names=("arithmetic", "sorting"))
    with pytest.raises(ApportionError, match=r"'mixture\.shares\.arithmetics' is no task \(did you mean 'arithmetic'"):
        p_of({"type": "fixed", "shares": {"arithmetics": 0.5, "sorting": 0.5}}, tasks)
    with pytest.raises(ApportionError, match=r"'mixture\.shares\.sorting' is missing"):
        p_of({"type": "fixed", "shares": {"arithmetic": 1}}, tasks)
    with pytest.raises(ApportionError, match=r"'mixture\.shares' is missing"):
        MIXTURES.build("fixed")


def test_upsample_gives_a_share_to_targets_by_importance_and_the_rest_to_others_alike():
    p = p_of({"type": "upsample", "share": 0.4}, sizes(7, 7, 7, 900, importance=[0.0, 3.0, 1.0, 0.0]))
    assert close(p, [0.3, 0.3, 0.1, 0.3])
    p = p_of("upsample", sizes(7, 7, importance=[0.0, 5.0]))
    assert close(p, [0.7, 0.3])
    assert close(p_of({"type": "upsample", "share": 1}, sizes(7, 7, importance=[0.0, 5.0])), [0.0, 1.0])


@pytest.mark.parametrize("importance", [[1.0, 1.0], [0.0, 0.0]])
def test_upsample_without_targets_beside_other_tasks_is_refused(importance):
    with pytest.raises(ApportionError, match=r"needs targets.*'targets\.tasks'.*'targets\.train' above 0"):
        p_of("upsample", sizes(7, 7, importance=importance))


@pytest.mark.parametrize("share", [0, 1.01, -1, float("nan"), "much"])
def test_upsample_takes_a_share(share):
    with pytest.raises(ApportionError, match=r"'mixture\.share'"):
        MIXTURES.build({"type": "upsample", "share": share})
