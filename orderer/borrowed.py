"""Towers that were made, and mostly trained, elsewhere: frozen, or tuned with the rest."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


class Borrowed(nn.Module):
    """A tower of another library.

    A frozen one stays in eval mode, learns nothing and keeps no graph, whatever the model around it
    does; gradients still reach its input where that asks for them.
    """

    trained: bool = True

    def borrow(self, trained: bool) -> None:
        """Freeze it, or not; to be called once all parts are there."""
        self.trained = trained
        self.requires_grad_(trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Borrowed":
        super().train(mode and self.trained)
        return self

    def graph(self, given: Tensor) -> AbstractContextManager[None]:
        """Keep a graph only if something can learn from it."""
        wanted = self.trained or given.requires_grad
        return torch.set_grad_enabled(torch.is_grad_enabled() and wanted)
