"""Whether the Hugging Face Hub can be reached, found out in seconds rather than by its client's minute of retries."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

_SECONDS = 5


@contextmanager
def hub() -> Iterator[bool]:
    """Let Hugging Face's libraries load by name within the block; without a network they use their caches alone.

    Yields whether the Hub can be reached.

    They retry for most of a minute, a file, before they fall back to the cache. In their offline mode they do so at once.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield not constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before


def reachable(endpoint: str) -> bool:
    """Return whether a connection to the endpoint opens within a few seconds; behind a proxy it is taken to."""
    address = urlsplit(endpoint)
    proxies = getproxies()
    if address.hostname is None or proxies.get(address.scheme) or proxies.get("all"):
        return True
    try:
        socket.create_connection(
            (address.hostname, address.port or (443 if address.scheme == "https" else 80)), timeout=_SECONDS
        ).close()
    except OSError:
        return False
    return True
