"""What stage 1 is trained for, a file for each term."""

from .adversarial import Discriminator
from .alignment import Alignment
from .balance import Balance
from .contrastive import contrastive_loss, gather, sigmoid_loss
from .perceptual import perceptual_distance
from .teacher import Teacher

__all__ = [
    "Alignment",
    "Balance",
    "Discriminator",
    "Teacher",
    "contrastive_loss",
    "gather",
    "perceptual_distance",
    "sigmoid_loss",
]
