"""What stage 1 is trained for, a file for each term."""

from .contrastive import contrastive_loss, gather, sigmoid_loss

__all__ = ["contrastive_loss", "gather", "sigmoid_loss"]
