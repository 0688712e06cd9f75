"""Batches of shards that are read as they come: over a network, or too many to be indexed.

Reading by number, as `Batches` does, promises more. Here

- the order is approximate: shards in an order drawn anew each epoch, samples mixed within a buffer;
- processes, and the readers of each, take disjoint shares of an epoch's shards. The first epoch of
  all readers together has every sample once. But each goes on to its next epoch when its own shards
  are through, and those with fewer samples sooner: later epochs mix, and with them how often a
  sample has come, which evens out as the shares are drawn anew;
- the batches depend on the seed, on the numbers of processes and of readers, and on the batch that
  the run began with. One that is resumed at batch 700 begins a new epoch, which has the number 700:
  what it has not yet seen of the epoch that was cut short waits for that new one.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .batches import Batch, Draw
from .framing import Framing
from .reader import NOTHING, Reader, identity
from .sample import Damaged, in_words
from .skips import JUDGED_FROM, MAX_SKIPPED, Skips
from .tar_stream import BROKEN, UNREADABLE
from .urls import ShardUrls

IN_VAIN = 10
"""Times that readers go through their shards without one pair, before it is taken for the end."""


class _Readers(IterableDataset[Batch | Damaged]):
    """A reader in each process that a loader starts, or in this one."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __iter__(self) -> Iterator[Batch | Damaged]:
        info = get_worker_info()
        return self.reader.read(info.id, info.num_workers) if info else self.reader.read(0, 1)


@dataclass(frozen=True, eq=False)
class Stream(Draw):
    """The stream of batches over shards behind URLs; the indices of a batch are hashes of keys.

    A sample that is damaged is left out and counted in `skipped`; so is a shard that cannot be
    opened or read to its end, once, whatever number of samples was in it. It is not tried again
    before the next epoch.
    """

    shards: ShardUrls
    framing: Framing
    max_skipped: float = MAX_SKIPPED
    """Share of damaged samples, and share of broken shards, that is put up with, in 0..1; one of
    each always is."""
    fits: Callable[[str], bool] = bool
    """Says of a caption whether it can be used: those of all pairs are not known beforehand. A pair
    with none counts as damaged."""
    skips: Skips = field(default_factory=Skips, init=False)
    broken: set[str] = field(default_factory=set, init=False)
    """Shards that could not be opened or read to their end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights:
            raise ValueError(f"shards behind URLs are not weighted, got {list(self.weights)}")

    @property
    def skipped(self) -> Mapping[str, int]:
        """Damaged samples and shards that this process met so far, by reason."""
        return self.skips.reasons

    def ahead(self, first: int, last: int, workers: int = 1) -> Iterator[tuple[int, Batch]]:
        """Yield each step in first..last-1 with its batch, made ahead by other processes.

        Args:
            first: step that the run begins with.
            last: step before which it ends.
            workers: processes that read for this one; 0 reads here.

        Raises:
            ValueError: if there are fewer shards than readers, or too much is damaged.
        """
        readers = self.world * max(1, workers)
        if len(self.shards.urls) < readers:
            raise ValueError(
                f"{self.shards.name} has {len(self.shards.urls)} shards, fewer than its readers: "
                f"{self.world} (processes) x {max(1, workers)} (workers)"
            )
        steps = range(first, last)
        batches = self._batches(first, workers)
        yield from ((step, next(batches)) for step in steps)

    def reader(self, first: int) -> Reader:
        """Give what reads for a run that begins with step `first`."""
        draw = {each.name: getattr(self, each.name) for each in fields(Draw)}
        return Reader(self.shards.urls, self.framing, self.fits, first=first, **draw)

    def _batches(self, first: int, workers: int) -> Iterator[Batch]:
        loader = DataLoader(
            _Readers(self.reader(first)),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_leave_signals,
            generator=torch.Generator(),  # else it draws from the one that the training seeds
        )
        in_vain = 0
        for item in loader:
            if isinstance(item, Batch):
                in_vain = 0
                for index in item.indices.tolist():
                    self.skips.met(index, None, self.shards.name, JUDGED_FROM, self.max_skipped)
                yield item
            elif item.reason == NOTHING:
                in_vain += 1
                if in_vain == IN_VAIN:
                    raise ValueError(
                        f"{self.shards.name} has no pair that can be read, {in_words(self.skipped)}"
                    )
            else:
                self._lost(item)

    def _lost(self, damaged: Damaged) -> None:
        name, index = self.shards.name, identity(damaged.key)
        if damaged.reason in (BROKEN, UNREADABLE):
            self.broken.add(damaged.key)
            if len(self.broken) > max(1, self.max_skipped * len(self.shards.urls)):
                raise ValueError(
                    f"{name} has too many shards that cannot be read, {len(self.broken)} of "
                    f"{len(self.shards.urls)}; the last is {damaged.key!r}, {damaged.reason}"
                )
        self.skips.met(index, damaged, name, JUDGED_FROM, self.max_skipped)


def _leave_signals(_: int) -> None:
    """Let a reader outlive what asks the run to stop: the run still saves, and then ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
