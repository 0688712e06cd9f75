"""Figures of an orderer: plain functions from arrays to numbers."""

from .attribution import attribution_maps
from .classification import class_accuracy, class_embeddings, classification_metrics
from .linear_probe import readable, readable_from
from .order import gain_maps, rank_correlation, raster_leak
from .probe import FreshReader
from .rank import entropy_rank, participation_rank
from .reconstruction import mean_psnr, psnr
from .redundancy import explained_by_before, explained_by_each
from .rerank import reranked_metrics
from .retrieval import retrieval_metrics
from .ssim import mean_ssim, ssim

__all__ = [
    "FreshReader",
    "attribution_maps",
    "class_accuracy",
    "class_embeddings",
    "classification_metrics",
    "entropy_rank",
    "explained_by_before",
    "explained_by_each",
    "gain_maps",
    "mean_psnr",
    "mean_ssim",
    "participation_rank",
    "psnr",
    "rank_correlation",
    "raster_leak",
    "readable",
    "readable_from",
    "reranked_metrics",
    "retrieval_metrics",
    "ssim",
]
