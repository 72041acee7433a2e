"""Numbers in sentences that know whose runs they are worked out from, so that a page can link them there.

Sentences are put together by f-strings in many places. A number carries the names of its arms along between Unicode's own
characters for annotations: `plain` takes them off again, `linked` makes links of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from markupsafe import Markup, escape

from apportion.reports import words

_ANCHOR, _SEPARATOR, _END = "\ufff9", "\ufffa", "\ufffb"  # Unicode, "Interlinear Annotation"
_TRACED = re.compile(f"{_ANCHOR}([^{_ANCHOR}{_END}]*?)((?:{_SEPARATOR}[^{_ANCHOR}{_SEPARATOR}{_END}]*)+){_END}")


def traced(text: str, *arms: str) -> str:
    """Return ``text``, a number in words, with the names of the arms that it is worked out from; nothing stays nothing."""
    return text and f"{_ANCHOR}{text}{''.join(_SEPARATOR + arm for arm in arms)}{_END}"


def tracing(*arms: str) -> Callable[[str], str]:
    """Return a function that traces its text to these arms, for where words are put together elsewhere."""
    return lambda text: traced(text, *arms)


def plain(sentence: str) -> str:
    """Return the sentence as people read it."""
    return _TRACED.sub(lambda found: found[1], sentence)


def linked(sentence: str, places: Mapping[str, str]) -> Markup:
    """Return the sentence with each traced number a link to the first of its arms that has a place.

    Args:
        sentence: Any text; what is no number of an arm in ``places`` is escaped and left as it is.
        places: The id of the element that holds an arm's runs, by its name.
    """
    parts, end = [], 0
    for found in _TRACED.finditer(sentence):
        arms = [arm for arm in found[2].split(_SEPARATOR)[1:] if arm in places]
        parts += [escape(sentence[end : found.start()]), _link(found[1], arms, places)]
        end = found.end()
    return Markup("").join([*parts, escape(sentence[end:])])


def _link(text: str, arms: list[str], places: Mapping[str, str]) -> Markup:
    if not arms:
        return escape(text)
    whose = f"the runs of {words.together(arms) if len(arms) < 4 else words.listing(arms, 3)}"
    return Markup('<a class="n" href="#{}" title="{}">{}</a>').format(places[arms[0]], whose, text)
