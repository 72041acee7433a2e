"""Where the names of points go: near their points, over no other name and no other point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from apportion.reports.svg import Point, line_path, tag

Line = tuple[Point, Point]

_CLEAR = 9.0  # from a point to its name, and around every point
# How much further off a name may go.
_RINGS = (0.0, 8.0, 17.0, 27.0, 38.0, 50.0, 64.0, 80.0, 104.0, 140.0, 190.0, 250.0)
_WAYS = 24
_ROUNDS = 3
_LETTER, _LINE = 10.8, 23.0  # what a name needs at the largest size the page writes it in, on a phone
# What a place costs, in units of distance: names over names or points cannot be read, over lines they can.
_OVER_NAME, _OVER_POINT, _OVER_LINE, _LEADER = 10_000.0, 1_000.0, 25.0, 60.0


class Box(NamedTuple):
    """A rectangle of the drawing, whose y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> Point:
        """Its middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def meets(self, other: Box) -> bool:
        """Return whether the two have some area in common."""
        apart = self.right <= other.left or other.right <= self.left or self.bottom <= other.top
        return not (apart or other.bottom <= self.top)

    def nearest(self, point: Point) -> Point:
        """Return the point of the rectangle that lies nearest to ``point``."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.top), self.bottom)

    def moved_into(self, room: Box) -> Box:
        """Return the rectangle moved, no further than it must be, until it lies in ``room``."""
        dx = max(room.left - self.left, 0.0) + min(room.right - self.right, 0.0)
        dy = max(room.top - self.top, 0.0) + min(room.bottom - self.bottom, 0.0)
        return Box(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)


@dataclass(frozen=True)
class Name:
    """A name to be written near a point, in the colour of an arm; those that are ``on`` stand out."""

    text: str
    point: Point
    colour: str
    on: bool = False


def written(names: Sequence[Name], room: Box, lines: Sequence[Box]) -> list[Markup]:
    """Return the names as text, with a leader where one had to go far from its point; see `place`."""
    sizes = [(_LETTER * len(name.text) + 4, _LINE) for name in names]
    parts = []
    for name, box in zip(names, place([name.point for name in names], sizes, room, lines), strict=True):
        if ends := leader(name.point, box):
            parts.append(tag("path", d=line_path(ends), cls=f"leader {name.colour}"))
        # Written at the side of its box that is nearest to the mark: on a wide page the name is smaller than its box.
        anchor = "start" if box.left >= name.point[0] else "end" if box.right <= name.point[0] else "middle"
        x = {"start": box.left + 2, "end": box.right - 2, "middle": box.centre[0]}[anchor]
        cls = "name on" if name.on else "name"
        parts.append(tag("text", name.text, x=x, y=box.centre[1], dy=".34em", text_anchor=anchor, cls=cls))
    return parts


def place(points: Sequence[Point], sizes: Sequence[Point], room: Box, lines: Sequence[Box]) -> list[Box]:
    """Return a rectangle in ``room`` for the name of each point, of the width and height in ``sizes``.

    Each name takes the cheapest of some 300 places around its point, given the others; a few rounds of that settle them.
    Names that have room enough never overlap. ``lines`` are thin rectangles that names should rather not cover.
    """
    spots = [Box(x - _CLEAR, y - _CLEAR, x + _CLEAR, y + _CLEAR) for x, y in points]
    places: dict[int, Box] = {}
    for _ in range(_ROUNDS):
        for i, point in enumerate(points):
            others = [(points[j], box) for j, box in places.items() if j != i]
            leaders = [line for other, box in others if (line := leader(other, box))]
            taken = _Taken([box for _, box in others], leaders, spots[i], [*spots[:i], *spots[i + 1 :]], lines)
            places[i] = _cheapest(point, sizes[i], room, taken)
    return [places[i] for i in range(len(points))]


@dataclass(frozen=True)
class _Taken:
    """What a name had better keep clear of: other names and their leaders, its own and other points, the chart's lines."""

    names: Sequence[Box]
    leaders: Sequence[Line]
    own: Box
    spots: Sequence[Box]
    lines: Sequence[Box]

    def covered(self, point: Point, box: Box) -> float:
        """Return the price of writing the name of ``point`` in ``box``, for the way there and what it would cover."""
        price = math.dist(point, box.nearest(point)) + _OVER_NAME * sum(map(box.meets, self.names))
        price += _OVER_POINT * (box.meets(self.own) + sum(map(box.meets, self.spots)))
        return price + _OVER_LINE * sum(map(box.meets, self.lines))

    def crossed(self, point: Point, box: Box) -> float:
        """Return what has to be added for leaders through names, points and other leaders."""
        times = sum(_enters(line, box) for line in self.leaders)
        if own := leader(point, box):
            times += sum(_enters(own, name) for name in self.names) + sum(_cross(own, line) for line in self.leaders)
            times += sum(_enters(own, spot) for spot in self.spots)
        return _LEADER * times


def leader(point: Point, box: Box) -> Line | None:
    """Return the ends of the line from a point to its name, None where the name stands beside its point."""
    end = box.nearest(point)
    length = math.dist(point, end)
    if length <= 2 * _CLEAR:
        return None
    start = 0.6 * _CLEAR / length
    return (point[0] + start * (end[0] - point[0]), point[1] + start * (end[1] - point[1])), end


def _cheapest(point: Point, size: Point, room: Box, taken: _Taken) -> Box:
    best, lowest = Box(*point, *point), math.inf
    for ring in _RINGS:
        if lowest <= ring:  # what lies further off costs more by its distance alone
            break
        for box in _ring(point, size, room, ring):
            price = taken.covered(point, box)
            if price < lowest and (price := price + taken.crossed(point, box)) < lowest:
                best, lowest = box, price
    return best


def _ring(point: Point, size: Point, room: Box, off: float) -> list[Box]:
    """Return the places all around a point, so far off."""
    (x, y), (width, height) = point, size
    found = []
    for way in range(_WAYS):
        across, down = math.cos(math.tau * way / _WAYS), math.sin(math.tau * way / _WAYS)
        cx, cy = x + across * (width / 2 + _CLEAR + off), y + down * (height / 2 + _CLEAR + off)
        found.append(Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2).moved_into(room))
    return found


def _enters(line: Line, box: Box) -> bool:
    """Return whether the line passes through the rectangle, looked at in twelve steps."""
    (x, y), (end_x, end_y) = line
    if max(x, end_x) < box.left or min(x, end_x) > box.right or max(y, end_y) < box.top or min(y, end_y) > box.bottom:
        return False
    steps = [(x + s / 12 * (end_x - x), y + s / 12 * (end_y - y)) for s in range(13)]
    return any(box.left < a < box.right and box.top < b < box.bottom for a, b in steps)


def _cross(one: Line, other: Line) -> bool:
    (a, b), (c, d) = one, other
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
