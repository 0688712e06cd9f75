"""How often texts come, counted in bounded memory."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MAX_BYTES = 64 * 2**20
"""About what one count may take: some 300,000 captions."""
ENTRY_BYTES = 150
"""Of a text and its number, besides the letters."""
LETTER_BYTES = 2
TOP = 40


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Which texts come how often."""

    total: int
    """Texts, each as often as it comes."""
    distinct: int
    once: int
    """Texts that come a single time."""
    top: tuple[tuple[str, int], ...]
    """The most frequent ones with their counts, the most frequent first."""
    is_cut: bool
    """True if rare texts had to be forgotten on the way: there are more distinct ones, and more
    that come again, than counted here."""


class FrequentTexts:
    """Counts texts; where they take too much memory, the rarer half of them is forgotten."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._counts: Counter[str] = Counter()
        self._max_bytes, self._bytes = max_bytes, 0
        self._total, self._is_cut = 0, False

    def add(self, texts: Iterable[str]) -> None:
        """Count some more."""
        for text in texts:
            self._bytes += 0 if text in self._counts else _bytes_of(text)
            self._counts[text] += 1
            self._total += 1
            if self._bytes > self._max_bytes:
                self._forget()

    def frequencies(self, top: int = TOP) -> Frequencies:
        """Sum up; texts that come equally often are in the order of their letters."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return Frequencies(
            total=self._total,
            distinct=len(ordered),
            once=sum(count == 1 for count in self._counts.values()),
            top=tuple(ordered[:top]),
            is_cut=self._is_cut,
        )

    def _forget(self) -> None:
        self._counts = Counter(dict(self._counts.most_common(len(self._counts) // 2)))
        self._bytes = sum(map(_bytes_of, self._counts))
        self._is_cut = True


def _bytes_of(text: str) -> int:
    return ENTRY_BYTES + LETTER_BYTES * len(text)
