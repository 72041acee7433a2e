"""The shapes of a row that are understood, and how each becomes an example."""

from __future__ import annotations

from collections.abc import Mapping

from apportion._errors import ApportionError
from apportion.tasks.example import Example

ACCEPTED = "prompt and completion, messages, instruction (and input) and output, or text"


def to_example(row: Mapping[str, object], where: str, fallback_id: str, apart: bool = False) -> Example:
    """Return the example that a row of any accepted shape describes.

    - ``prompt``, ``completion``: two texts, or two lists of messages.
    - ``messages``: a list of ``{"role", "content"}``; the completion is the last assistant's turn.
    - ``instruction``, ``output``, and perhaps ``input`` (Alpaca): the prompt is instruction, blank line, input.
    - ``text``: no prompt, all of it completion.

    Args:
        row: Field to value.
        where: Where the row stands, such as ``file:line``, to start an error message.
        fallback_id: The id if the row has none.
        apart: Leave the field ``instruction`` out of the prompt: `instruction_of` reads it.

    Raises:
        ApportionError: Another shape, or a field of the wrong kind.
    """
    number = fallback_id if row.get("id") is None else str(row["id"])
    if "messages" in row:
        return _chat(_messages(row, "messages", where), number)
    if "prompt" in row and "completion" in row:
        if isinstance(row["prompt"], list) and isinstance(row["completion"], list):
            return _chat(_messages(row, "prompt", where) + _messages(row, "completion", where), number)
        return _pair(_text(row, "prompt", where), _text(row, "completion", where), number)
    if "instruction" in row and "output" in row:
        parts = ["" if apart else _text(row, "instruction", where), _text(row, "input", where)]
        return _pair("\n\n".join(part for part in parts if part), _text(row, "output", where), number)
    if "text" in row:
        return _pair("", _text(row, "text", where), number)
    found = ", ".join(map(str, row)) or "none"
    raise ApportionError(f"{where} has the fields {found}; a row needs {ACCEPTED}: rename its fields.")


def instruction_of(row: Mapping[str, object], where: str) -> str:
    """Return the row's own instruction, "" if it has none.

    Raises:
        ApportionError: The field is not a text.
    """
    return _text(row, "instruction", where).strip()


def _text(row: Mapping[str, object], field: str, where: str) -> str:
    """Return a field's text; a missing or null one is blank, and a blank completion is dropped and counted later."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ApportionError(f"{where}: '{field}' must be text, not {type(value).__name__}.")
    return value


def _messages(row: Mapping[str, object], field: str, where: str) -> list[dict[str, str]]:
    value = row[field]
    messages: list[dict[str, str]] = []
    for message in value if isinstance(value, list) else [value]:
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise ApportionError(f"{where}: '{field}' must be a list of messages with texts 'role' and 'content'.")
        messages.append({"role": role, "content": content})
    return messages


def _pair(prompt: str, completion: str, number: str) -> Example:
    return Example(prompt, completion, number, references=(completion,))


def _chat(messages: list[dict[str, str]], number: str) -> Example:
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    # Without an assistant's turn the completion is blank: dropped and counted like any other.
    last = turns[-1] if turns else len(messages)
    prompt = "\n".join(message["content"] for message in messages[:last])
    completion = messages[last]["content"] if turns else ""
    return Example(prompt, completion, number, tuple(messages), references=(completion,))
