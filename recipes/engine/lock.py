"""A lock that ends with its process, however that ends: nobody has to remove it after a kill."""

import fcntl
import logging
from pathlib import Path
from typing import IO


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
        return True

    def release(self) -> None:
        """Let another one have it; nothing to do where it is not held."""
        if self._file:
            self._file.close()
            self._file = None
