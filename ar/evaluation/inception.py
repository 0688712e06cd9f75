"""The Inception network of the published Fréchet distances, with weights from a local file.

It is pt_inception-2015-12-05, that of pytorch-fid and its kin: torchvision's Inception v3, but
average pools do not count their padding, and the last is a maximum. torchvision's own weights, of
ImageNet, belong to another network and do not fit.

    N images   S image side   B batch   h, w height and width of a map

Sources: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; the differences are those of
https://github.com/mseitzer/pytorch-fid/blob/master/src/pytorch_fid/inception.py.
"""

from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception

from orderer.weights import fill, read_weights

from .classifier import check_judging
from .fitting import centred

FEATURES = 2048
SIDE = 299
"""Pixels to which images are resized, as pytorch-fid does: bilinear, without antialiasing."""
UNUSED = ("fc.weight", "fc.bias")
"""What tells classes from the features."""
COUNTER = "num_batches_tracked"
"""Of batch norms, in some weight files and not in others; nothing depends on it here."""


class _Uncounted:
    """A block whose average pool does not count the padding."""

    branch_pool: nn.Module

    def _forward(self, x: Float[Tensor, "B _ h w"]) -> list[Tensor]:
        *others, _ = super()._forward(x)  # type: ignore[misc]
        return [*others, self.branch_pool(self._pooled(x))]

    def _pooled(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(_Uncounted, inception.InceptionA):
    pass


class _C(_Uncounted, inception.InceptionC):
    pass


class _E(_Uncounted, inception.InceptionE):
    pass


class _Last(_E):
    def _pooled(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return F.max_pool2d(x, 3, stride=1, padding=1)


class FIDInception(inception.Inception3):
    """From images to what its classes are told from."""

    def __init__(self) -> None:
        blocks = [inception.BasicConv2d, _A, inception.InceptionB, _C, inception.InceptionD, _E]
        super().__init__(
            aux_logits=False, inception_blocks=[*blocks, inception.InceptionAux], init_weights=False
        )
        self.Mixed_7c = _Last(1280 + 768)
        self.fc = nn.Identity()

    def forward(self, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N 2048"]:
        check_judging(self)
        pixels = F.interpolate(centred(images), (SIDE, SIDE), mode="bilinear")
        return self._forward(pixels)[0]


def load_inception(path: Path) -> FIDInception:
    """Make the network with the weights of a safetensors file.

    Raises:
        OSError: if the file is not there or damaged.
        ValueError: if it is in another format or of another network, torchvision's own as well.
    """
    network = FIDInception()
    counters = {name: x for name, x in network.state_dict().items() if name.endswith(COUNTER)}
    weights = {name: x for name, x in read_weights(path).items() if name not in UNUSED}
    fill(network, {**counters, **weights}, path)
    return network.eval().requires_grad_(False)
