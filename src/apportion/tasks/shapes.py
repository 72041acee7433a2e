"""The shapes of a row that are understood, and how each becomes an example."""

from __future__ import annotations

from collections.abc import Mapping

from apportion._errors import ApportionError, nearest
from apportion.tasks.example import Example

ACCEPTED = "prompt and completion, messages, conversations, instruction (and input) and output, or text"
# The first shape whose fields are there, not all of them null, is the row's.
_SHAPES = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"), ("text",))
# Templates know two of the speakers by one name each; the others keep theirs.
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model"), "assistant"),
    **{role: role for role in ("system", "developer", "tool", "function", "observation")},
}


class RowError(ApportionError):
    """One row that cannot be read: where it stands, what is wrong with it, and what to do about such rows."""

    def __init__(self, what: str, remedy: str = "mend the row") -> None:
        super().__init__(f"{what}; {remedy}.")
        self.what = what
        self.remedy = remedy


def to_example(row: Mapping[str, object], where: str, fallback_id: str, apart: bool = False) -> Example:
    """Return the example that a row of any accepted shape describes.

    - ``messages``: a list of ``{"role", "content"}``; the completion is the last assistant's turn.
    - ``conversations``: the same; in either, turns may be ``{"from", "value"}`` (ShareGPT), and a content may be a list of
      text parts.
    - ``prompt``, ``completion``: two texts, or two lists of messages.
    - ``instruction``, ``output``, and perhaps ``input`` (Alpaca): the prompt is instruction, blank line, input.
    - ``text``: no prompt, all of it completion.

    Args:
        row: Field to value.
        where: Where the row stands, such as ``file:line``, to start an error message.
        fallback_id: The id if the row has none.
        apart: Leave the field ``instruction`` out of the prompt: `instruction_of` reads it.

    Raises:
        RowError: Another shape, or a field of the wrong kind.
    """
    number = fallback_id if row.get("id") is None else str(row["id"])
    there = _there(row)
    if not there:
        raise RowError(
            f"{where} has the fields {', '.join(map(str, row)) or 'none'}",
            f"a row needs {ACCEPTED}: rename its fields, or say 'tasks.columns'",
        )
    shape = _first(there, row)
    if shape[0] in ("messages", "conversations"):
        messages = _messages(row, shape[0], where)
        if not messages and len(there) > 1:
            raise RowError(f"{where}: '{shape[0]}' is empty beside '{there[1][0]}'", "keep one of them")
        return _chat(messages, number)
    if shape[0] == "prompt":
        if isinstance(row["prompt"], list) and isinstance(row["completion"], list):
            return _chat(_messages(row, "prompt", where) + _messages(row, "completion", where), number)
        return _pair(_text(row, "prompt", where), _text(row, "completion", where), number)
    if shape[0] == "instruction":
        parts = ["" if apart else _text(row, "instruction", where), _text(row, "input", where)]
        return _pair("\n\n".join(part for part in parts if part), _text(row, "output", where), number)
    return _pair("", _text(row, "text", where), number)


def fields_read(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return the fields that `to_example` reads of a row, none where the row has no accepted shape."""
    there = _there(row)
    if not there:
        return ()
    shape = _first(there, row)
    beside = ("input",) if shape[0] == "instruction" else ()
    return tuple(field for field in (*shape, *beside, "id") if field in row)


def _there(row: Mapping[str, object]) -> list[tuple[str, ...]]:
    return [shape for shape in _SHAPES if all(field in row for field in shape)]


def _first(there: list[tuple[str, ...]], row: Mapping[str, object]) -> tuple[str, ...]:
    return next((shape for shape in there if any(row[field] is not None for field in shape)), there[0])


def instruction_of(row: Mapping[str, object], where: str) -> str:
    """Return the row's own instruction, "" if it has none.

    Raises:
        RowError: The field is not a text.
    """
    return _text(row, "instruction", where).strip()


def calls_tools(row: Mapping[str, object]) -> bool:
    """Say whether a turn of the row's conversation calls tools: such calls are no part of the example."""
    turns = row.get("messages") or row.get("conversations")
    return isinstance(turns, list) and any(isinstance(turn, Mapping) and turn.get("tool_calls") for turn in turns)


def _text(row: Mapping[str, object], field: str, where: str) -> str:
    """Return a field's text; a missing or null one is blank, and a blank completion is dropped and counted later."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"{where}: '{field}' must be text, not {type(value).__name__}")
    return value


def _messages(row: Mapping[str, object], field: str, where: str) -> list[dict[str, str]]:
    value = row[field]
    return [_turn(turn, field, where) for turn in (value if isinstance(value, list) else [value])]


def _turn(turn: object, field: str, where: str) -> dict[str, str]:
    named = turn if isinstance(turn, Mapping) else {}
    role, content = (
        named.get(ours) if named.get(ours) is not None else named.get(theirs)
        for ours, theirs in (("role", "from"), ("content", "value"))
    )
    if isinstance(role, str) and content is None and named.get("tool_calls"):
        raise RowError(f"{where}: a turn of '{field}' calls tools and has no text", "write the call into its 'content'")
    if isinstance(content, list):
        content = "".join(_part(part, field, where) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise RowError(f"{where}: '{field}' must be a list of messages with texts 'role' and 'content'")
    if role not in _ROLES:
        raise RowError(f"{where}: '{field}' has the unknown role '{role}'{nearest(role, _ROLES)}")
    return {"role": _ROLES[role], "content": content}


def _part(part: object, field: str, where: str) -> str:
    """Return the text of one part of a content; the parts follow each other as they do in chat templates."""
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise RowError(f"{where}: '{field}' has a content with a part that is no text but {kind}")


def _pair(prompt: str, completion: str, number: str) -> Example:
    return Example(prompt, completion, number, references=(completion,))


def _chat(messages: list[dict[str, str]], number: str) -> Example:
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    # Without an assistant's turn the completion is blank: dropped and counted like any other.
    last = turns[-1] if turns else len(messages)
    prompt = "\n".join(message["content"] for message in messages[:last])
    completion = messages[last]["content"] if turns else ""
    return Example(prompt, completion, number, tuple(messages), references=(completion,))
