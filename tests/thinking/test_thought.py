"""What was written is told apart token by token."""

import pytest

from apportion._errors import ApportionError
from apportion.budget import ThinkingBudget
from apportion.thinking.tags import TagIds, ThinkingTags, find
from apportion.thinking.thought import split
from tests.evaluation.models import tokenizer

TAGS = TagIds(open=(3,), close=(4, 5, 6), wait=(7,), answer=(8, 9))
# Letters of kinds: t thinking, a answer, i inserted.
CASES = [
    # Written, budget, kinds, closed, forced.
    ([1, 1, 4, 5, 6, 2], 9, "ttaaaa", True, False),
    ([1, 1, 4, 5, 6, 2], 5, "ttaaaa", True, False),
    ([1, 1, 4, 5, 6, 8, 9, 2], 2, "ttiiiiia", True, True),
    ([1, 1, 4, 5, 6, 8, 9, 2], 4, "ttaaiiia", True, True),
    ([4, 5, 6, 8, 9, 2], 0, "iiiiia", True, True),
    ([1, 4, 1, 4, 5, 6, 8], 4, "tttaiii", True, True),
    ([1, 1, 1], 9, "ttt", False, False),
    ([1, 1, 4, 5], 9, "tttt", False, False),
    ([1, 1, 4, 5], 3, "ttai", False, True),
    ([1, 1, 4, 5], 2, "ttii", False, True),
    ([], 0, "", False, False),
    ([1, 4, 5, 6, 1, 4, 5, 6], None, "taaaaaaa", True, False),
]


@pytest.mark.parametrize(("written", "most", "kinds", "closed", "forced"), CASES)
def test_each_token_has_its_kind(written, most, kinds, closed, forced):
    thought = split(written, TAGS, ThinkingBudget(most=most))
    assert "".join(kind[0] for kind in thought.kinds) == kinds
    assert (thought.closed, thought.forced) == (closed, forced)
    assert len(thought.thinking) == kinds.count("t") and all(token != 6 for token in thought.thinking)
    if closed:
        words = 2 if forced else 0
        assert list(thought.answer) == written[find(written, TAGS.close) + 3 + words :]


def test_a_wait_in_place_of_an_end_is_inserted_and_stands_in_the_thinking():
    tags = TagIds((3,), (4, 5), (7, 8), ())
    written = [1, 7, 8, 1, 7, 8, 4, 5, 2]
    thought = split(written, tags, ThinkingBudget(most=20, ignore=1), {4, 0})
    assert "".join(kind[0] for kind in thought.kinds) == "ttttiiaaa"
    assert thought.thinking == (1, 7, 8, 1, 7, 8)


def test_a_prompt_is_opened_once():
    tags = TagIds((3, 4), (5,), (), ())
    assert tags.opened([1, 2]) == (1, 2, 3, 4) == tags.opened(tags.opened([1, 2]))
    assert tags.opened([1, 3]) == (1, 3, 3, 4)


def test_tags_are_what_the_tokenizer_writes_for_them_alone():
    found = ThinkingTags(open="copy", close="reverse", wait="abcd").ids(tokenizer())
    for text, ids in (("copy", found.open), ("reverse", found.close), ("abcd", found.wait)):
        assert tokenizer().decode(ids) == text
    assert found.answer == () and found.forced == found.close


@pytest.mark.parametrize(
    ("changed", "said"), [({"open": " "}, "'thinking.open' is empty"), ({"close": ""}, "is empty")]
)
def test_a_tag_that_is_none_is_refused(changed, said):
    with pytest.raises(ApportionError, match=said):
        ThinkingTags(**changed).ids(tokenizer())
