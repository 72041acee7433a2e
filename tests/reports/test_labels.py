"""Names beside points: in the room, off each other and off the points, however the points lie."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.reports.labels import Box, leader, place

ROOM = Box(54.0, 28.0, 546.0, 374.0)


def inside(box, room=ROOM):
    return room.left - 1e-6 <= box.left and room.top - 1e-6 <= box.top and box.right <= room.right + 1e-6


@st.composite
def crowds(draw, most=12):
    """Up to twelve points, anywhere or all in one spot or on one line, and the sizes of their names."""
    width, height = draw(st.sampled_from([(0, 0), (4, 4), (4, 346), (492, 4), (60, 60), (492, 346)]))
    left, top = draw(st.floats(54, 546 - width)), draw(st.floats(28, 374 - height))
    part = st.floats(0, 1)
    points = draw(st.lists(st.tuples(part, part), min_size=1, max_size=most))
    points = [(left + width * x, top + height * y) for x, y in points]
    letters = draw(st.lists(st.integers(2, 18), min_size=len(points), max_size=len(points)))
    return points, [(10.8 * n + 4, 23.0) for n in letters]


@settings(max_examples=12, deadline=None)
@given(crowds())
def test_twelve_names_never_overlap_and_stay_inside(crowd):
    points, sizes = crowd
    boxes = place(points, sizes, ROOM, [])
    assert [(b.right - b.left, b.bottom - b.top) for b in boxes] == [pytest.approx(size) for size in sizes]
    assert all(inside(box) for box in boxes)
    assert not any(box.meets(other) for i, box in enumerate(boxes) for other in boxes[:i])
    assert not any(box.left < x < box.right and box.top < y < box.bottom for box in boxes for x, y in points)


def test_a_name_with_room_stands_right_beside_its_point():
    (box,) = place([(300.0, 200.0)], [(80.0, 20.0)], ROOM, [])
    assert math.dist((300, 200), box.nearest((300, 200))) == pytest.approx(9.0)
    assert leader((300.0, 200.0), box) is None


def test_a_name_makes_way_for_a_line_where_it_can():
    line = Box(300.0, 199.0, 546.0, 201.0)
    (box,) = place([(300.0, 200.0)], [(80.0, 20.0)], ROOM, [line])
    assert not box.meets(line)


def test_a_name_far_off_has_a_leader_that_ends_at_it():
    box = Box(100.0, 100.0, 150.0, 120.0)
    start, end = leader((50.0, 110.0), box)
    assert end == (100.0, 110.0) and 50 < start[0] < 60


def test_the_same_points_get_the_same_places():
    points, sizes = [(200.0 + i, 200.0) for i in range(5)], [(90.0, 23.0)] * 5
    assert place(points, sizes, ROOM, []) == place(points, sizes, ROOM, [])
