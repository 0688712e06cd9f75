"""A lock that ends with its process, however that ends: nobody has to remove it after a kill."""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

_HELD: set[IO[bytes]] = set()
"""By this process; a lock is held until all who share its file have closed it."""


def _let_go() -> None:
    """Close in a forked child, such as a worker that reads ahead, what its parent alone holds."""
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


class Lock:
    """Held by one at a time, of all who name the same file; the file stays and says nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Hold it from now on; False if somebody else does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError as error:  # some shared file systems know no locks
            logging.getLogger(__name__).warning("%s cannot be locked: %s", self.path, error)
        self._file = file
        _HELD.add(file)
        return True

    def release(self) -> None:
        """Let another one have it; nothing to do where it is not held."""
        if self._file:
            _HELD.discard(self._file)
            self._file.close()
            self._file = None
