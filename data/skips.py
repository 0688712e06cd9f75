"""The damaged samples of a source: counted, and not put up with without end."""

from collections import Counter
from threading import Lock

from .sample import Damaged, in_words

MAX_SKIPPED = 0.01
JUDGED_FROM = 1_000
"""Samples that are read before their share of damaged ones is judged by how many were read."""


class Skips:
    """The damaged samples of a source, each counted once however often it is met."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self._damaged: set[int] = set()
        self._read = 0
        self._lock = Lock()

    def met(
        self, index: int, damaged: Damaged | None, name: str, least: int, max_skipped: float
    ) -> None:
        """Count a sample that was read; refuse to go on where too many are damaged.

        Args:
            index: of the sample.
            damaged: what is wrong with it, if anything.
            name: of the source.
            least: samples that the damaged ones are a share of, before as many were read.
            max_skipped: share of damaged samples that is put up with.

        Raises:
            ValueError: if there are more.
        """
        with self._lock:
            self._read += 1
            if damaged is None or index in self._damaged:
                return
            self._damaged.add(index)
            self.reasons[damaged.reason] += 1
            if len(self._damaged) > max(1, max_skipped * max(self._read, least)):
                raise ValueError(
                    f"{name} has too many damaged samples, {in_words(self.reasons)} among "
                    f"{self._read} read; the last is {damaged.key!r}"
                )
