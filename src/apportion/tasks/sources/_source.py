"""What every source is: a frozen config that reads raw tasks and can say, cheaply, whether its data changed."""

from __future__ import annotations

import hashlib

from apportion._config import Config
from apportion.tasks.example import RawTask


class Source(Config):
    """Where tasks come from. Its fields are the source's own keys of the recipe's ``tasks`` block."""

    def read(self) -> list[RawTask]:
        """Return the tasks as the data has them, not yet cleaned or split.

        Raises:
            ApportionError: Missing, unreadable or misshapen data; the message names file and line.
        """
        raise NotImplementedError

    def digest(self) -> str:
        """Return a digest of the data's bytes, without parsing them where that is possible."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return a digest of data and settings; where the data lies does not matter."""
        settings = self.model_dump_json(exclude={"path"})
        return hashlib.blake2b(f"{type(self).__name__}{settings}{self.digest()}".encode(), digest_size=16).hexdigest()
