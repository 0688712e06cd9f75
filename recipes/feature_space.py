"""In which features images are compared: those of the judge's network, or of one from a file.

    judge                                    the network of evaluation.judge, trained on real images
    open_clip:NAME@FILE.safetensors          any image tower that open_clip knows
    inception:FILE.safetensors               that of the published distances, see `ar.evaluation`

No model is measured in the features it was made of: a tower that an orderer sees, reads captions
with or started from is refused.

N images   S image side   F features
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ar.evaluation import CLASSIFIER_FEATURES, SCENE_FEATURES, Classifier, SceneJudge
from orderer import Orderer, OrdererConfig, open_clip_towers
from orderer.sequences import FixedOrder, SequenceConfig
from orderer.weights import check_safe, digest_of
from recipes.trained_once import digest_of_net

JUDGE = "judge"
OF_JUDGES = {
    "scenes": SCENE_FEATURES,
    "classes": CLASSIFIER_FEATURES,
    "words": CLASSIFIER_FEATURES,
}
"""Features of the judges that have a network of their own."""
OF_INCEPTION = 2048
"""Features of its last pool."""
CHUNK = 64
"""Images that a network sees at once."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A feature space as a user names it."""

    kind: str
    name: str = ""
    """open_clip's."""
    path: Path | None = None
    """Of the weights."""


def parse_features(spec: str) -> Named:
    """Read the name of a feature space.

    Raises:
        ValueError: for any other.
    """
    kind, _, rest = spec.partition(":")
    name, _, file = rest.partition("@")
    if spec == JUDGE:
        return Named(kind=JUDGE)
    if kind == "open_clip" and name and file:
        return Named(kind=kind, name=name, path=Path(file))
    if kind == "inception" and rest:
        return Named(kind=kind, path=Path(rest))
    raise ValueError(
        "evaluation.features must be judge, open_clip:NAME@FILE or inception:FILE, with FILE in "
        f"safetensors, got {spec!r}"
    )


def number_of_features(spec: str, judge: str) -> int:
    """How many there are, known before any weights are read; `judge` is `evaluation.judge`."""
    named = parse_features(spec)
    if named.kind == "open_clip":
        return int(open_clip_towers.architecture(named.name, "image")["embed_dim"])
    return OF_JUDGES[judge] if named.kind == JUDGE else OF_INCEPTION


def check_apart(spec: str, config: OrdererConfig | SequenceConfig) -> None:
    """Refuse the features of weights that an orderer started from, before they are read.

    Raises:
        OSError: if their file is not there.
        ValueError: if they are the orderer's, or not in safetensors.
    """
    path = parse_features(spec).path
    if path is None:
        return
    check_safe(path)
    digest = digest_of([path])
    for part in ("features", "text"):
        weights = getattr(config, f"{part}_weights", None)  # a fixed order has none
        if weights and weights["sha256"] == digest:
            _refuse(spec, part)


class FeatureSpace:
    """Sees images in the features of one network, which never learns.

    Args:
        spec: its name, see above.
        judge: the network of the judge, needed where it is the one.
        device: where the network sees; features come back to the CPU.

    Raises:
        OSError: if its file is not there or damaged.
        ValueError: if its file is of another network, or the judge has none.
    """

    def __init__(
        self, spec: str, judge: Classifier | SceneJudge | None, device: torch.device
    ) -> None:
        named = parse_features(spec)
        self.spec = spec
        self.net, self.about = _network(named, judge)
        self.sha256 = digest_of([named.path]) if named.path else digest_of_net(self.net)
        self.device = device
        self.net.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N F"]:
        seen = [self.net(some.to(self.device)).float().cpu() for some in images.split(CHUNK)]
        return torch.cat(seen)

    def check_not_of(self, orderer: Orderer | FixedOrder) -> None:
        """Refuse a tower of which an orderer holds a part, under whatever name.

        Raises:
            ValueError: if it does.
        """
        check_apart(self.spec, orderer.config)
        own = [x.cpu() for x in orderer.state_dict().values() if x.ndim > 1]
        for value in self.net.state_dict().values():
            if value.ndim > 1 and value.any() and any(torch.equal(x, value.cpu()) for x in own):
                _refuse(self.spec, "features")

    def protocol(self) -> dict[str, Any]:
        """What stands beside figures taken in this space."""
        return {"space": self.about, "sha256": self.sha256}


def _refuse(spec: str, part: str) -> None:
    raise ValueError(
        "evaluation.features must be of a network that no measured model was made of, got "
        f"{spec!r}, which is the orderer's {part} tower"
    )


def _network(named: Named, judge: Classifier | SceneJudge | None) -> tuple[nn.Module, str]:
    """The network, and what it is."""
    if named.path is None:
        assert judge is not None  # see `recipes.fidelity.check_fidelity`
        return _Judge(judge), "the judge's own network, trained on real images"
    if named.kind == "open_clip":
        return _Tower(named.name, named.path), f"open_clip's image tower {named.name}, embeddings"
    from ar.evaluation.inception import load_inception  # torchvision is slow to import

    return (
        load_inception(named.path),
        "Inception of pt_inception-2015-12-05, 2048 features, images resized as pytorch-fid does",
    )


class _Judge(nn.Module):
    """What a judge reads its labels from."""

    def __init__(self, judge: Classifier | SceneJudge) -> None:
        super().__init__()
        self.judge = copy.deepcopy(judge)  # which stays where it judges

    def forward(self, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N F"]:
        return self.judge.features(images)


class _Tower(nn.Module):
    """The embedding that an image tower of open_clip makes of a whole image, not scaled."""

    tower: Any

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        settings = open_clip_towers.architecture(name, "image")
        self.tower = open_clip_towers.load(settings, "image", path).requires_grad_(False)
        side = self.tower.image_size
        self.size = (side, side) if isinstance(side, int) else tuple(side)
        self.mean, self.std = settings["mean"], settings["std"]

    def forward(self, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N F"]:
        pixels = F.interpolate(images.float() / 255, self.size, mode="bicubic", antialias=True)
        mean, std = (pixels.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        made = self.tower((pixels.clamp(0, 1) - mean) / std)
        return made[0] if isinstance(made, tuple) else made
