import pytest

from apportion.tasks.shapes import RowError, to_example


def example(row):
    return to_example(row, "f:1", "id")


def turns(row):
    return [(turn["role"], turn["content"]) for turn in example(row).messages]


def chat(*pairs, names=("role", "content")):
    return [dict(zip(names, pair, strict=True)) for pair in pairs]


QUESTION, ANSWER = ("user", "why?"), ("assistant", "so.")


def test_sharegpt_turns():
    told = [("system", "be brief"), ("human", "why?"), ("gpt", "so."), ("tool", "42"), ("gpt", "right")]
    row = {"conversations": chat(*told, names=("from", "value"))}
    expected = [("system", "be brief"), QUESTION, ANSWER, ("tool", "42"), ("assistant", "right")]
    assert turns(row) == expected
    assert example(row).completion == "right"
    assert turns({"messages": row["conversations"]}) == turns({"conversations": chat(*expected)}) == expected


def test_both_pairs_of_names_with_nulls_as_parquet_fills_them():
    row = {"from": "human", "value": "why?", "role": None, "content": None}
    assert turns({"conversations": [row, {**row, "from": "gpt", "value": "so."}]}) == [QUESTION, ANSWER]


def test_content_in_parts():
    parts = [{"type": "text", "text": "wh"}, {"type": "text", "text": "y?"}]
    assert turns({"messages": chat(("user", parts), ANSWER)}) == [QUESTION, ANSWER]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"messages": chat(("user", [{"type": "image_url", "image_url": "x"}]))},
            "a part that is no text but image_url",
        ),
        ({"messages": chat(("user", [3]))}, "a part that is no text but int"),
        ({"messages": chat(("asistant", "so."))}, r"unknown role 'asistant' \(did you mean 'assistant'\?\)"),
        ({"conversations": chat(("narrator", "x"), names=("from", "value"))}, "unknown role 'narrator'"),
        ({"messages": chat(("user", None))}, "must be a list of messages with texts 'role' and 'content'"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            "calls tools and has no text",
        ),
        ({"messages": [], "prompt": "a", "completion": "b"}, "'messages' is empty beside 'prompt'"),
        ({"messages": None}, "'messages' must be a list"),
        ({"question": "a"}, r"f:1 has the fields question; a row needs .*'tasks.columns'"),
        ({"prompt": [[[]]], "completion": "b"}, "'prompt' must be text, not list"),
    ],
)
def test_bad_rows_say_why(row, message):
    with pytest.raises(RowError, match=message):
        example(row)


def test_text_beside_tool_calls_and_empty_calls_are_taken():
    for calls in ([{"id": 1}], [], None):
        row = {"messages": [*chat(QUESTION), {"role": "assistant", "content": "so.", "tool_calls": calls}]}
        assert turns(row) == [QUESTION, ANSWER]


def test_the_first_shape_that_is_not_null_counts():
    pair = {"prompt": "a", "completion": "b"}
    assert example({"messages": None, **pair}).prompt == "a"
    assert example({**dict.fromkeys(pair), "text": "c"}).completion == "c"
    # Published sets of conversations repeat the first question under 'prompt'.
    assert example({"messages": chat(QUESTION, ANSWER), **pair}).completion == "so."


def test_an_empty_conversation_alone_is_blank():
    assert example({"messages": []}).completion == ""
