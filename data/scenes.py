"""Scenes: an endless captioned set that is drawn, not downloaded.

A scene is one to three objects (shape, colour, size, place) on a ground. Scene `index` of a split
is a pure function of the two, and its factors stay readable, so that a measure can ask what is
where.

    train, val   share one law; eight of the 48 colour-shape pairs never occur
    test         every object has one of the eight pairs that were held out
    judge        every pair occurs: for the networks that judge images, never for a model they judge

Idea: Johnson et al. 2017, "CLEVR", section 3 and its held-out attribute pairs (CoGenT),
https://arxiv.org/abs/1612.06890. Letters: S pixels on a side, r radius of an object in pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count as count_from
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from .sample import Pair, Pairs, pairs_from

SHAPES = ("circle", "square", "triangle", "cross", "ring", "moon")
COLOURS = {
    "red": (214, 48, 44),
    "orange": (240, 140, 40),
    "yellow": (240, 222, 70),
    "green": (48, 160, 72),
    "cyan": (64, 200, 210),
    "blue": (44, 80, 200),
    "purple": (140, 60, 170),
    "pink": (244, 140, 190),
}
SIZES = {"small": 0.13, "large": 0.165}
"""Radius as a share of the image's side."""
PLACES = (
    "at top left",
    "at top",
    "at top right",
    "at left",
    "at centre",
    "at right",
    "at bottom left",
    "at bottom",
    "at bottom right",
)
"""The cells of a 3 x 3 grid, row by row."""
GROUNDS = ("pale", "dark", "striped", "shaded")
DRAWN_ANEW = 3
"""Raised when the settings of the demo were chosen on the scenes of before."""
SPLITS = ("train", "val", "test", "judge")

JITTER = 0.01
"""How far an object strays from the middle of its cell, as a share of the image's side."""
OBJECTS = (0.4, 0.4, 0.2)
"""Share of the scenes with one, two and three objects."""

Plane = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object: its factors by name, and where it strays to, in image sides."""

    shape: str
    colour: str
    size: str
    place: int
    """Index into PLACES."""
    shift: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is in one image."""

    objects: tuple[SceneObject, ...]
    ground: str
    light: float
    """Added to the ground's grey, in levels of 255."""


def factors(scene: Scene) -> dict[str, tuple[bool, ...]]:
    """What is true of a scene, factor by factor: whether each shape, colour ... is there."""

    def there(
        values: Iterable[object], of_object: Callable[[SceneObject], object]
    ) -> tuple[bool, ...]:
        seen = {of_object(thing) for thing in scene.objects}
        return tuple(value in seen for value in values)

    return {
        "shape": there(SHAPES, lambda o: o.shape),
        "colour": there(COLOURS, lambda o: o.colour),
        "size": there(SIZES, lambda o: o.size),
        "place": there(range(len(PLACES)), lambda o: o.place),
        "count": tuple(len(scene.objects) == number for number in (1, 2, 3)),
        "ground": tuple(scene.ground == ground for ground in GROUNDS),
    }


def held_out(colour: str, shape: str) -> bool:
    """True for the colour-shape pairs that no model is trained on (one per colour)."""
    return SHAPES.index(shape) == list(COLOURS).index(colour) % len(SHAPES)


def scene(split: str, index: int) -> Scene:
    """Draw the factors of scene `index` (0 or more) of a split: a pure function of both.

    Raises:
        ValueError: for a split that is not one of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes have the splits {', '.join(SPLITS)}, got {split!r}")
    random = np.random.default_rng([DRAWN_ANEW, SPLITS.index(split), index])
    number = 1 + int(random.choice(len(OBJECTS), p=OBJECTS))
    places = random.permutation(len(PLACES))[:number]
    pairs = [
        (colour, shape)
        for colour in COLOURS
        for shape in SHAPES
        if split == "judge" or held_out(colour, shape) == (split == "test")
    ]
    return Scene(
        objects=tuple(_draw_object(random, pairs, int(place)) for place in places),
        ground=GROUNDS[random.integers(len(GROUNDS))],
        light=float(random.uniform(-8, 8)),
    )


def _draw_object(
    random: np.random.Generator, pairs: list[tuple[str, str]], place: int
) -> SceneObject:
    colour, shape = pairs[random.integers(len(pairs))]
    across, down = random.uniform(-JITTER, JITTER, 2)
    return SceneObject(
        shape=shape,
        colour=colour,
        size=list(SIZES)[random.integers(len(SIZES))],
        place=place,
        shift=(float(across), float(down)),
    )


def captions(scene: Scene) -> tuple[str, ...]:
    """Say what is in a scene five times, from a bare phrase to the full sentence (the last)."""
    things = scene.objects
    bare = _listed([f"a {o.shape}" for o in things])
    coloured = _listed([_article(f"{o.colour} {o.shape}") for o in things])
    placed = _listed([_article(f"{o.colour} {o.shape} {PLACES[o.place]}") for o in things])
    sized = _listed([f"a {o.size} {o.colour} {o.shape} {PLACES[o.place]}" for o in things])
    return (bare, coloured, placed, sized, f"{sized} on a {scene.ground} ground")


def captions_from_the_ground(scene: Scene) -> tuple[str, ...]:
    """Say the same as `captions` in the opposite order: the ground first, the shapes last."""
    ground, things = f"a {scene.ground} ground", scene.objects
    sized = _listed([f"a {o.size} object" for o in things])
    placed = _listed([f"a {o.size} object {PLACES[o.place]}" for o in things])
    coloured = _listed([f"a {o.size} {o.colour} object {PLACES[o.place]}" for o in things])
    shaped = _listed([f"a {o.size} {o.colour} {o.shape} {PLACES[o.place]}" for o in things])
    return (ground, *(f"{ground} with {said}" for said in (sized, placed, coloured, shaped)))


POLICIES = {"scenes": captions, "scenes_ground_first": captions_from_the_ground}
"""What is said first of a scene, and last, by the name of the source."""

NAMED_AT = {
    "scenes": {"shape": 1, "count": 1, "colour": 2, "place": 3, "size": 4, "ground": 5},
    "scenes_ground_first": {
        "ground": 1,
        "size": 2,
        "count": 2,
        "place": 3,
        "colour": 4,
        "shape": 5,
    },
}
"""The caption, from 1, in which each factor of a scene is first named."""


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _listed(phrases: list[str]) -> str:
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def render(scene: Scene, image_size: int) -> UInt8[np.ndarray, "S S 3"]:
    """Draw a scene with antialiased edges."""
    image = _ground(scene, image_size)  # [S, S, 3]
    rows, columns = np.mgrid[0:image_size, 0:image_size].astype(np.float32) + 0.5
    for thing in scene.objects:
        across = (thing.place % 3 + 0.5) / 3 + thing.shift[0]
        down = (thing.place // 3 + 0.5) / 3 + thing.shift[1]
        radius = SIZES[thing.size] * image_size
        distance = DISTANCES[thing.shape](
            columns - across * image_size, rows - down * image_size, radius
        )
        cover = np.clip(0.5 - distance, 0, 1)[..., None]  # [S, S, 1]
        image += cover * (np.asarray(COLOURS[thing.colour], np.float32) - image)
    return image.round().astype(np.uint8)


def _ground(scene: Scene, image_size: int) -> Float32[np.ndarray, "S S 3"]:
    down = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size
    grey = {
        "pale": np.full_like(down, 206),
        "dark": np.full_like(down, 66),
        "striped": 128 + 24 * np.sign(np.sin(2 * np.pi * 4 * down)),
        "shaded": 92 + 96 * down,
    }[scene.ground]
    tint = np.asarray((0, 2, 6), np.float32)
    return np.broadcast_to(
        (grey + scene.light)[:, None, None] + tint, (image_size, image_size, 3)
    ).astype(np.float32)


def _circle(x: Plane, y: Plane, r: float) -> Plane:
    return np.hypot(x, y) - r


def _square(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(abs(x), abs(y)) - 0.86 * r


def _triangle(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(y, 0.866 * abs(x) - 0.5 * y) - 0.6 * r


def _cross(x: Plane, y: Plane, r: float) -> Plane:
    upright = np.maximum(abs(x) - 0.34 * r, abs(y) - r)
    level = np.maximum(abs(y) - 0.34 * r, abs(x) - r)
    return np.minimum(upright, level)


def _ring(x: Plane, y: Plane, r: float) -> Plane:
    return abs(np.hypot(x, y) - 0.74 * r) - 0.26 * r


def _moon(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(_circle(x, y, r), -_circle(x - 0.6 * r, y, 0.8 * r))


DISTANCES: dict[str, Callable[[Plane, Plane, float], Plane]] = dict(
    zip(SHAPES, (_circle, _square, _triangle, _cross, _ring, _moon), strict=True)
)
"""Signed distance to each shape's edge in pixels, negative inside."""


def numbered_scenes(split: str, number: int) -> Iterator[tuple[int, Scene]]:
    """The first scenes of a split; outside train no full sentence comes twice."""
    seen: set[str] = set()
    for index in count_from():
        if number == 0:
            return
        drawn = scene(split, index)
        sentence = captions(drawn)[-1]
        if split != "train" and sentence in seen:
            continue
        seen.add(sentence)
        number -= 1
        yield index, drawn


def scene_pairs(split: str, number: int, image_size: int, policy: str = "scenes") -> Iterator[Pair]:
    """Render the first `number` scenes of a split, with the captions of a policy.

    Raises:
        ValueError: for an unknown split, or a number below 1.
    """
    if number < 1:
        raise ValueError(f"the number of scenes must be at least 1, got {number}")
    for index, drawn in numbered_scenes(split, number):
        key = f"{split}-{index:07d}"
        yield Pair(key=key, image=render(drawn, image_size), captions=POLICIES[policy](drawn))


def load_scenes(split: str, number: int, image_size: int, policy: str = "scenes") -> Pairs:
    """Hold the first `number` scenes of a split in memory."""
    pairs = scene_pairs(split, number, image_size, policy)
    return pairs_from(f"{policy}/{split}", pairs, skipped={})
