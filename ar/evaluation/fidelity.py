"""How far generated images are from real ones as a whole: two distances between sets of features.

    N, M images   F features of each (_ where other features are refused)

Both compare distributions, not pairs. The Fréchet distance takes them for Gaussians and comes out
larger the fewer images there are: compare it at equal numbers, and with that of real images to real
ones. The kernel distance assumes nothing, and its mean does not depend on the numbers.

Sources: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", equation 6, https://arxiv.org/abs/1706.08500; Bińkowski et al. 2018, "Demystifying MMD
GANs", section 4, https://arxiv.org/abs/1801.01401.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from .coverage import check_alike


def frechet_distance(real: Float[Tensor, "N F"], other: Float[Tensor, "M _"]) -> float:
    """The squared 2-Wasserstein distance of two Gaussians with the sets' means and covariances.

    Raises:
        ValueError: for other features, or a set of fewer than F + 1 images, whose covariance has
            no full rank.
    """
    check_alike(real, other)
    for features in (real, other):
        if len(features) <= features.shape[1]:
            raise ValueError(
                f"a Fréchet distance of {features.shape[1]} features needs at least "
                f"{features.shape[1] + 1} images, got {len(features)}"
            )
    real, other = real.double(), other.double()
    apart = (real.mean(dim=0) - other.mean(dim=0)).square().sum()
    a, b = torch.cov(real.T), torch.cov(other.T)  # [F, F]
    # The square root of a b has the trace of that of the symmetric sqrt(a) b sqrt(a).
    root = _root(a)
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return (apart + a.trace() + b.trace() - 2 * shared).item()


def _root(matrix: Float[Tensor, "F F"]) -> Float[Tensor, "F F"]:
    """The square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kernel_distance(real: Float[Tensor, "N F"], other: Float[Tensor, "M _"]) -> float:
    """The squared maximum mean discrepancy, without bias: it may fall below 0.

    Raises:
        ValueError: for other features, or a set of fewer than 2 images.
    """
    check_alike(real, other)
    for features in (real, other):
        if len(features) < 2:
            raise ValueError(f"a kernel distance needs at least 2 images, got {len(features)}")
    real, other = real.double(), other.double()
    between = _kernel(real, other).mean()
    return (_mean_within(real) + _mean_within(other) - 2 * between).item()


def _mean_within(x: Float[Tensor, "N F"]) -> Float[Tensor, ""]:
    """The mean of the kernel over all pairs of two different images."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


def _kernel(x: Float[Tensor, "N F"], y: Float[Tensor, "M F"]) -> Float[Tensor, "N M"]:
    return (x @ y.T / x.shape[1] + 1) ** 3
