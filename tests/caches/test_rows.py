"""Tensors that grow: what they hold, how many bytes that is, and that they are not copied in each step."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from apportion.caches._rows import Rows

changes = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 90)),
        st.tuples(st.just("crop"), st.integers(1, 200)),
        st.tuples(st.just("replace"), st.integers(1, 40)),
        st.tuples(st.just("rows"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
    ),
    max_size=12,
)


@given(changes)
def test_they_hold_what_a_plain_tensor_would(steps):
    rows, plain = Rows(), torch.zeros(2, 3, 0, 4)
    rows.append(new := torch.rand(2, 3, 5, 4))
    plain = torch.cat([plain, new], 2)
    for change, how in steps:
        if change == "append":
            new = torch.rand(2, 3, how, 4)
            rows.append(new)
            plain = torch.cat([plain, new], 2)
        elif change == "crop":
            rows.crop(how)
            plain = plain[:, :, :how]
        elif change == "replace":
            rows.replace(plain[:, :, :how].clone())
            plain = plain[:, :, :how]
        else:
            rows.rows(torch.tensor(how))
            plain = plain[torch.tensor(how)]
        assert torch.equal(rows.view(), plain)
        assert rows.nbytes == plain.nbytes <= rows.reserved


def test_a_token_at_a_time_moves_the_buffer_only_when_it_is_full():
    rows, places = Rows(), set()
    for _ in range(1000):
        rows.append(torch.zeros(1, 2, 1, 4))
        places.add(rows.view().data_ptr())
    assert len(places) <= 5 and rows.reserved == 1024 * 2 * 4 * 4


def test_nothing_yet_is_no_bytes():
    assert Rows().nbytes == Rows().reserved == 0
