"""Are generated images what was asked for, and like real ones? Judged by nets trained on those."""

from .caption_following import Thing, following
from .classifier import FEATURES, Classifier, accuracy, train_classifier
from .coverage import NEIGHBOURS, precision_recall
from .deviation import deviations, drifting
from .fidelity import frechet_distance, kernel_distance
from .scene_judge import SceneJudge, train_judge
from .tagger import tag_precision, train_tagger

__all__ = [
    "FEATURES",
    "NEIGHBOURS",
    "Classifier",
    "SceneJudge",
    "Thing",
    "accuracy",
    "deviations",
    "drifting",
    "following",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
    "tag_precision",
    "train_classifier",
    "train_judge",
    "train_tagger",
]
