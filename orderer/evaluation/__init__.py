"""How well prefixes find, rebuild and order: plain functions from arrays to numbers."""

from .order import gain_maps, raster_leak
from .reconstruction import mean_psnr, psnr
from .retrieval import retrieval_metrics

__all__ = ["gain_maps", "mean_psnr", "psnr", "raster_leak", "retrieval_metrics"]
