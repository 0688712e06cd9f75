"""A judge of scenes: a small net that names the objects of an image, place by place.

Trained on real scenes, it judges generated ones. Report its score on real test images beside its
score on generated ones: that is the ceiling. Letters, in the shapes below:

    N images   B batch   S image side   P places   w side of a window
    H features of a place   F logits of a place
"""

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from .caption_following import Thing
from .fitting import centred, fit

WINDOW = 14 / 32
"""Side of the window on a place, as a share of the image's: an object, and room to stray."""
LEARNING_RATE = 1e-3
CHUNK = 256
"""Images that are seen at once."""
FEATURES = 96
"""That a place is read from."""


class SceneJudge(nn.Module):
    """Looks at every place of a scene with the same eyes, at any image size.

    Args:
        shapes: how many shapes there are to tell apart.
        colours: how many colours.
        rows: the places are the cells of a grid of rows x rows, counted row by row.
    """

    def __init__(self, *, shapes: int, colours: int, rows: int = 3) -> None:
        super().__init__()
        self.shapes, self.colours, self.rows = shapes, colours, rows
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(6),  # the size of S = 48; at a smaller S cells are repeated
            nn.Flatten(),
            nn.Linear(64 * 6 * 6, FEATURES),
            nn.ReLU(),
            nn.Linear(FEATURES, 1 + shapes + colours),
        )

    def forward(self, images: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B P F"]:
        """Logits at each place: that it is occupied (one), of the shapes, of the colours."""
        windows = self._windows(centred(images))  # [B, P, 3, w, w]
        return self.net(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "N 3 S S"]) -> Float[Tensor, "N H"]:
        """What the places are read from, their mean: what an image shows, wherever it stands."""
        return torch.cat([self._pooled(some) for some in images.split(CHUNK)])

    def _pooled(self, images: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B H"]:
        windows = self._windows(centred(images))
        return self.net[:-1](windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).mean(dim=1)

    def _windows(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B P 3 w w"]:
        side = x.shape[-1]
        window = round(WINDOW * side)
        margin = window // 2
        x = F.pad(x, (margin,) * 4, mode="replicate")
        middles = [(cell + 0.5) / self.rows * side for cell in range(self.rows)]
        starts = [round(middle - window / 2) + margin for middle in middles]
        corners = product(starts, starts)
        return torch.stack([x[..., i : i + window, j : j + window] for i, j in corners], dim=1)

    def split(
        self, logits: Float[Tensor, "*n F"]
    ) -> tuple[Float[Tensor, "*n 1"], Float[Tensor, "*n shapes"], Float[Tensor, "*n colours"]]:
        """Tell the logits of occupied, shape and colour apart."""
        occupied, shape, colour = logits.split([1, self.shapes, self.colours], dim=-1)
        return occupied, shape, colour

    @torch.no_grad()
    def see(self, images: UInt8[Tensor, "N 3 S S"]) -> list[list[Thing]]:
        """Name the objects of each image, place by place."""
        return [things for some in images.split(CHUNK) for things in self._see(some)]

    def _see(self, images: UInt8[Tensor, "B 3 S S"]) -> list[list[Thing]]:
        occupied, shape, colour = self.split(self(images))
        there = (occupied[..., 0] > 0).tolist()
        shapes, colours = shape.argmax(dim=-1).tolist(), colour.argmax(dim=-1).tolist()
        return [
            [(s, c, place) for place, (on, s, c) in enumerate(zip(*row, strict=True)) if on]
            for row in zip(there, shapes, colours, strict=True)
        ]


def train_judge(
    images: UInt8[Tensor, "N 3 S S"],
    said: Sequence[Sequence[Thing]],
    *,
    shapes: int,
    colours: int,
    rows: int = 3,
    steps: int = 400,
    batch_size: int = 64,
    seed: int = 0,
) -> SceneJudge:
    """Train a judge on real scenes and the objects that are in each.

    Raises:
        ValueError: for unequal numbers, no scene, an object outside the shapes, colours and places,
            or fewer than 1 step.
    """
    if len(images) != len(said) or not said:
        raise ValueError(
            f"a judge needs the objects of each scene, got {len(said)} for {len(images)}"
        )
    objects = _objects(said, shapes, colours, rows * rows).to(images.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = SceneJudge(shapes=shapes, colours=colours, rows=rows).to(images.device)

    def loss(chosen: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return _loss(judge, judge(images[chosen]), objects[chosen])

    fit(
        judge,
        loss,
        examples=len(images),
        steps=steps,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )
    return judge


def _loss(
    judge: SceneJudge, logits: Float[Tensor, "B P F"], objects: Int[Tensor, "B P 3"]
) -> Float[Tensor, ""]:
    """Cross-entropy of occupied at every place, of shape and colour at the occupied ones."""
    there = objects[..., 0] == 1  # [B, P]
    occupied = judge.split(logits)[0][..., 0]
    _, shape, colour = judge.split(logits[there])  # [objects, ...]
    _, true_shape, true_colour = objects[there].unbind(-1)
    # A sum over the objects, so that a batch of empty scenes has a loss, too.
    named = F.cross_entropy(shape, true_shape, reduction="sum")
    named = named + F.cross_entropy(colour, true_colour, reduction="sum")
    presence = F.binary_cross_entropy_with_logits(occupied, there.float())
    return presence + named / there.sum().clamp(min=1)


def _objects(
    said: Sequence[Sequence[Thing]], shapes: int, colours: int, places: int
) -> Int[Tensor, "N P 3"]:
    """Whether each place is occupied (1 or 0), and by which shape and colour."""
    objects = torch.zeros(len(said), places, 3, dtype=torch.long)
    for index, things in enumerate(said):
        for shape, colour, place in things:
            if not (0 <= shape < shapes and 0 <= colour < colours and 0 <= place < places):
                raise ValueError(
                    f"scene {index} has shape {shape}, colour {colour} and place {place}, "
                    f"of {shapes} shapes, {colours} colours and {places} places"
                )
            objects[index, place] = torch.tensor((1, shape, colour))
    return objects
