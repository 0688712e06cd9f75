"""What stage 1 is trained for, a file for each term."""

from .adversarial import Discriminator
from .alignment import Alignment
from .balance import BALANCED_EVERY, Balance
from .captioning import captioning_loss, piece_log_likelihoods
from .contrastive import contrastive_loss, gather, sigmoid_loss
from .matching import Negatives, hard_negatives, matching_loss
from .perceptual import perceptual_distance
from .settings import TEXT_TERMS, Objectives
from .teacher import Teacher
from .terms import Terms

__all__ = [
    "BALANCED_EVERY",
    "TEXT_TERMS",
    "Alignment",
    "Balance",
    "Discriminator",
    "Negatives",
    "Objectives",
    "Teacher",
    "Terms",
    "captioning_loss",
    "contrastive_loss",
    "gather",
    "hard_negatives",
    "matching_loss",
    "perceptual_distance",
    "piece_log_likelihoods",
    "sigmoid_loss",
]
