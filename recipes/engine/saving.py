"""When a training saves, and the thread that writes while it goes on."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from .checkpoint import save_checkpoint, save_in_parts
from .files import JSON
from .parts import Groups, are_shared_out
from .processes import others_wait_for


@dataclass(kw_only=True)
class Saver(AbstractContextManager["Saver"]):
    """The checkpoints of one training.

    In the background, a save copies what it is given to the CPU and returns; the rest, and so every
    guarantee, is `save_checkpoint`'s. One save at a time: the next waits for the one before. What
    is shared out over processes is written at once, in parts.
    """

    folder: Path
    every: int = 500
    """Steps between two checkpoints."""
    keep: int = 2
    """The newest that are kept."""
    in_background: bool = False
    """True writes in a thread; what it fails at is said by the next save, which writes all the
    same, or at the end: raised, or said if the training ends by another error."""
    _writing: "Future[Path] | None" = field(default=None, init=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Wait for the last save before anybody may think that this training is over."""
        try:
            self.finish()
        except OSError as failed:
            if error is None:
                raise
            logging.getLogger(__name__).warning("a checkpoint could not be written: %s", failed)

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint after `step` updates."""
        return step % self.every == 0

    def save(self, step: int, tensors: Groups, state: Mapping[str, JSON]) -> None:
        """Write a checkpoint, or begin to; call it on all processes."""
        if are_shared_out(tensors):
            save_in_parts(self.folder, step, tensors, state, keep=self.keep)
        else:
            others_wait_for(lambda: self._save_whole(step, tensors, state))

    def _save_whole(self, step: int, tensors: Groups, state: Mapping[str, JSON]) -> None:
        try:
            self.finish()
        except OSError as error:  # an older state is missed less than this one would be
            logging.getLogger(__name__).warning("a checkpoint could not be written: %s", error)
        if not self.in_background:
            save_checkpoint(self.folder, step, tensors, state, keep=self.keep)
            return
        copies = {
            name: {key: tensor.detach().to("cpu", copy=True) for key, tensor in group.items()}
            for name, group in tensors.items()
        }
        pool = ThreadPoolExecutor(1, "checkpoint")  # whose thread a program that ends waits for
        self._writing = pool.submit(
            save_checkpoint, self.folder, step, copies, dict(state), keep=self.keep
        )
        pool.shutdown(wait=False)

    def finish(self) -> None:
        """Wait for what is still being written, and raise what it failed at."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
