"""Figures of an orderer: plain functions from arrays to numbers."""

from .attribution import attribution_maps
from .bootstrap import Interval, intervals
from .class_probe import probed_accuracy
from .classification import class_embeddings, classification_metrics
from .codes import fit_codes, most_recovered, quantised
from .linear_probe import readable, readable_from
from .nearest import nearest_accuracy, nearest_scores
from .order import gain_maps, rank_correlation, raster_leak
from .probe import FreshReader
from .rank import entropy_rank, participation_rank
from .reconstruction import mean_psnr, psnr
from .redundancy import explained_by_before, explained_by_each, explained_by_one_before
from .rerank import reranked_metrics
from .retrieval import retrieval_metrics
from .ssim import mean_ssim, ssim
from .string_reader import StringReader, StringReading, recovered, spelt

__all__ = [
    "FreshReader",
    "Interval",
    "StringReader",
    "StringReading",
    "attribution_maps",
    "class_embeddings",
    "classification_metrics",
    "entropy_rank",
    "explained_by_before",
    "explained_by_each",
    "explained_by_one_before",
    "fit_codes",
    "gain_maps",
    "intervals",
    "mean_psnr",
    "mean_ssim",
    "most_recovered",
    "nearest_accuracy",
    "nearest_scores",
    "participation_rank",
    "probed_accuracy",
    "psnr",
    "quantised",
    "rank_correlation",
    "raster_leak",
    "readable",
    "readable_from",
    "recovered",
    "reranked_metrics",
    "retrieval_metrics",
    "spelt",
    "ssim",
]
