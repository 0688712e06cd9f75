"""Does a generated image show what it was asked for? Judged by nets trained on real images."""

from .caption_following import Thing, following
from .classifier import Classifier, accuracy, train_classifier
from .deviation import deviations
from .scene_judge import SceneJudge, train_judge

__all__ = [
    "Classifier",
    "SceneJudge",
    "Thing",
    "accuracy",
    "deviations",
    "following",
    "train_classifier",
    "train_judge",
]
