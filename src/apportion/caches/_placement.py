"""Where the pages of a layer's cache lie: some heads' all on the device, of the others a few there and all on the host."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.caches._rows import Rows


class Placement:
    """Keys and values of one layer after the prompt, by page, with the heads told apart.

    An *unstable* head has every page on the device. A *stable* one has all full pages on the host and ``pages`` of them on
    the device, in slots; the page that is being filled is among those, and goes to the host when it is full. Nothing is
    lost: what is on neither side is nowhere.

    Args:
        keys: Everything (b, kv_heads, n, d).
        values: Likewise.
        unstable: Which heads are, (kv_heads,) bool.
        chosen: Pages (b, stable heads, pages) to begin with, each row's last page among them.
        page: Tokens of a page.

    Attributes:
        moved: Bytes between host and device since it was last set to zero.
        length: Tokens that are held.
    """

    def __init__(self, keys: Tensor, values: Tensor, unstable: Tensor, chosen: Tensor, page: int) -> None:
        self.page, self.unstable = page, unstable
        self.length = keys.shape[2]
        self.moved = 0
        self.table = chosen.clone()
        self.device_rows = (Rows(), Rows())
        self.host_rows = (Rows(), Rows())
        full = self.length // page * page
        self.slots: list[Tensor] = []
        for whole, on_device, on_host in zip((keys, values), self.device_rows, self.host_rows, strict=True):
            on_device.append(whole[:, unstable])
            stable = whole[:, ~unstable]
            if full:
                on_host.append(stable[:, :, :full].to("cpu"))
                self.moved += stable[:, :, :full].nbytes
            padded = torch.nn.functional.pad(stable, (0, 0, 0, -self.length % page)).unflatten(2, (-1, page))
            self.slots.append(_taken(padded, chosen))

    @property
    def last(self) -> int:
        """The page that was last begun."""
        return (self.length - 1) // self.page

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Add one token of each head; a page that this fills is written to the host, and the next takes a slot."""
        offset = self.length % self.page
        if offset == 0:
            self._begin()
        slot = (self.table == self.length // self.page).long().argmax(dim=2)
        for new, on_device, slots in zip((keys, values), self.device_rows, self.slots, strict=True):
            on_device.append(new[:, self.unstable])
            stable = new[:, ~self.unstable][:, :, 0]
            where = slot[..., None, None, None].expand(*slot.shape, 1, 1, stable.shape[-1])
            part = slots[:, :, :, offset : offset + 1]
            part.scatter_(2, where, stable[:, :, None, None])
        self.length += 1
        if offset == self.page - 1:
            self._flush(slot)

    def _begin(self) -> None:
        """Give the page that begins the slot of the one that was ranked lowest, not the first page's; it goes in front."""
        last = self.table.shape[2] - 1
        victim = torch.where(self.table[:, :, -1] == 0, last - 1, last)[..., None]
        where = torch.arange(last, device=self.table.device).expand(*self.table.shape[:2], last)
        others = where + (where >= victim)
        order = torch.cat([victim, others], dim=2)
        self.table = torch.gather(self.table, 2, order)
        self.table[:, :, 0] = self.length // self.page
        self.slots = [_taken(slots, order) for slots in self.slots]

    def _flush(self, slot: Tensor) -> None:
        for slots, on_host in zip(self.slots, self.host_rows, strict=True):
            index = slot[..., None, None, None].expand(*slot.shape, 1, *slots.shape[3:])
            page = torch.gather(slots, 2, index)[:, :, 0]
            on_host.append(page.to("cpu"))
            self.moved += page.nbytes

    def rank(self, order: Tensor) -> None:
        """Let stable heads hold the pages ``order`` (b, stable heads, pages), the best first: fetch those that they lack.

        The page that is being filled has to be among them.
        """
        promoted = ~(order[..., :, None] == self.table[..., None, :]).any(-1)
        # The place in the table of each page that stays, and for the others a place of one that goes.
        stays = (self.table[..., :, None] == order[..., None, :]).any(-1)
        free = stays.to(torch.int8).sort(dim=2, stable=True).indices
        count = promoted.long().cumsum(2) - 1
        target = torch.gather(free, 2, count.clamp(min=0))
        for slots, on_host in zip(self.slots, self.host_rows, strict=True):
            rows, heads, places = promoted.nonzero(as_tuple=True)
            if len(rows):
                pages = on_host.view().unflatten(2, (-1, self.page))
                fetched = pages[rows.cpu(), heads.cpu(), order[rows, heads, places].cpu()].to(slots.device)
                slots[rows, heads, target[rows, heads, places]] = fetched
                self.moved += fetched.nbytes
        table = self.table.clone()
        rows, heads, places = promoted.nonzero(as_tuple=True)
        table[rows, heads, target[rows, heads, places]] = order[rows, heads, places]
        # In the order of rank, so that the last of the table is the first to go.
        ranked = (order[..., :, None] == table[..., None, :]).long().argmax(-1)
        self.table = torch.gather(table, 2, ranked)
        self.slots = [_taken(slots, ranked) for slots in self.slots]

    def resident(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values (b, stable heads, pages * page, d) of the slots, and which token each is, alike."""
        keys, values = (slots.flatten(2, 3) for slots in self.slots)
        places = (self.table[..., None] * self.page + torch.arange(self.page, device=self.table.device)).flatten(2)
        return keys, values, places

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return all keys and values (b, kv_heads, n, d), from wherever they are."""
        found = []
        for on_device, on_host, slots in zip(self.device_rows, self.host_rows, self.slots, strict=True):
            b, heads = slots.shape[:2]
            d = slots.shape[-1]
            out = slots.new_empty((b, len(self.unstable), self.length, d))
            out[:, self.unstable] = on_device.view()
            full = on_host.length
            stable = out.new_empty((b, heads, self.length, d))
            if full:
                stable[:, :, :full] = on_host.view().to(stable.device)
            if full < self.length:
                slot = (self.table == self.last).long().argmax(dim=2)
                index = slot[..., None, None, None].expand(*slot.shape, 1, *slots.shape[3:])
                stable[:, :, full:] = torch.gather(slots, 2, index)[:, :, 0, : self.length - full]
            out[:, ~self.unstable] = stable
            found.append(out)
        return found[0], found[1]

    def take(self, index: Tensor) -> None:
        """Keep the batch rows at ``index``, in that order."""
        for rows in (*self.device_rows, *self.host_rows):
            rows.rows(index)
        self.slots = [slots.index_select(0, index.to(slots.device)) for slots in self.slots]
        self.table = self.table.index_select(0, index.to(self.table.device))

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(rows.nbytes for rows in self.device_rows) + sum(slots.nbytes for slots in self.slots)

    @property
    def host_bytes(self) -> int:
        """Bytes on the host."""
        return sum(rows.nbytes for rows in self.host_rows)


def _taken(pages: Tensor, chosen: Tensor) -> Tensor:
    """Return pages (b, heads, n, page, d) at ``chosen`` (b, heads, k): (b, heads, k, page, d)."""
    index = chosen[..., None, None].expand(*chosen.shape, *pages.shape[3:])
    return torch.gather(pages, 2, index)
