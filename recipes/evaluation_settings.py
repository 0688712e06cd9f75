"""Settings of what is measured, and by whom."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orderer.evaluation import StringReading
from recipes.engine.settings import at_least
from recipes.feature_space import parse_features

Task = Literal[
    "retrieval",
    "classification",
    "labels",
    "reconstruction",
    "generation",
    "search",
    "completion",
    "fidelity",
    "likelihood",
    "rate",
    "trunk",
    "order",
    "probe",
    "factors",
    "strings",
    "captioning",
]
DRAWN: frozenset[Task] = frozenset({"generation", "search", "completion"})
"""Tasks that draw images, for a judge to see."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on the test split and the unseen one."""

    tasks: tuple[Task, ...] = ("retrieval", "reconstruction", "generation")
    """`classification` is for labelled sets: an image's only caption is the name of its class."""
    captions: Literal["all", "last"] = "last"
    """Queries: every caption of an image, or the last (for sets whose captions grow in detail)."""
    rerank: int = 0
    """The best of each query that the matching logit ranks again, reported apart; 0 is off."""
    generated: int = 500
    """Images to generate, from the first captions of the unseen (or test) split."""
    guidance_scales: tuple[float, ...] = ()
    """Others than that of `sampling`, with which the same images are generated as well."""
    context_scales: tuple[float, ...] = ()
    """Others than that of `sampling`: the same images are generated with every pair of a guidance
    scale and a context scale."""
    judge: Literal["scenes", "classes", "words", "retrieval"] = "scenes"
    """Who judges generated images: a network trained on real scenes, on real classes, or on the
    commonest words of real captions; or the orderer's own retrieval (which then judges itself)."""
    features: str = "judge"
    """Of which network `fidelity` compares images in: `judge`, `open_clip:NAME@FILE` or
    `inception:FILE`, see `recipes.feature_space`."""
    perceptual_model: Path | None = None
    """Folder of a vision model of transformers, in whose eyes rebuilt images are compared, too."""
    judge_steps: int = 300
    """Training of the judge."""
    judges: Path | None = None
    """Where trained judges are left and looked for; null: OUT/judges."""
    scored: int = 500
    """Images of the test split whose likelihood and rate are taken."""
    judge_scenes: int = 10_000
    """Real scenes that the judge of scenes is trained on."""
    probe_steps: int = 400
    """Training of the fresh readers of `probe`, and of the small models of `order`."""
    probe_scenes: int = 3000
    """Images that linear probes and the Gaussian of `rate` are fitted on, and neighbours found
    among."""
    strings: StringReading = field(default_factory=StringReading)
    """How strings are read."""

    def __post_init__(self) -> None:
        at_least(0, rerank=self.rerank)
        parse_features(self.features)
        at_least(1, generated=self.generated, scored=self.scored)
        for scale in self.guidance_scales:
            at_least(0, guidance_scales=scale)
        for scale in self.context_scales:
            at_least(0, context_scales=scale)
        at_least(1, judge_steps=self.judge_steps, judge_scenes=self.judge_scenes)
        at_least(1, probe_steps=self.probe_steps)
        at_least(2, probe_scenes=self.probe_scenes)
