"""Are generated images what was asked for, and like real ones? Is an order of tokens a good one?"""

from .caption_following import Thing, following
from .classifier import FEATURES as CLASSIFIER_FEATURES
from .classifier import Classifier, accuracy, train_classifier
from .coverage import NEIGHBOURS, precision_recall
from .deviation import deviations, drifting
from .difficulty import gini, marginal_log_prob, variation
from .equivariance import equivariance, measure_order
from .fidelity import frechet_distance, kernel_distance
from .gradient_conflict import conflict, gradient_cosines
from .position_decodability import position_decodability
from .scene_judge import FEATURES as SCENE_FEATURES
from .scene_judge import SceneJudge, train_judge
from .sequences import Sequences, small_model
from .tagger import chance_of, tag_precision, train_tagger
from .transfer import Schooling, Transfer, transfer
from .useless_tokens import semantic_area, useless_tokens

__all__ = [
    "CLASSIFIER_FEATURES",
    "NEIGHBOURS",
    "SCENE_FEATURES",
    "Classifier",
    "SceneJudge",
    "Schooling",
    "Sequences",
    "Thing",
    "Transfer",
    "accuracy",
    "chance_of",
    "conflict",
    "deviations",
    "drifting",
    "equivariance",
    "following",
    "frechet_distance",
    "gini",
    "gradient_cosines",
    "kernel_distance",
    "marginal_log_prob",
    "measure_order",
    "position_decodability",
    "precision_recall",
    "semantic_area",
    "small_model",
    "tag_precision",
    "train_classifier",
    "train_judge",
    "train_tagger",
    "transfer",
    "useless_tokens",
    "variation",
]
