"""With how much guidance the same images are drawn, and what it is called."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ar import Sampling
from recipes.experiment import Experiment

UNGUIDED = "1"
"""The name of drawing from a model as it is."""


def samplings(experiment: Experiment) -> dict[str, Sampling]:
    """By name every guidance that images are to be drawn with, that of `sampling` first.

    Each scale of the guidance by the condition meets each of that by the context.
    """
    own, asked = experiment.sampling, experiment.evaluation
    found = [
        replace(own, guidance_scale=guidance, context_scale=context)
        for context in (own.context_scale, *asked.context_scales)
        for guidance in (own.guidance_scale, *asked.guidance_scales)
    ]
    return {name_of(each): each for each in found}


def name_of(sampling: Sampling) -> str:
    """The scale of the guidance by the condition, and that by the context if there is one."""
    by_context = "" if sampling.context_scale == 1.0 else f", context {sampling.context_scale:g}"
    return f"{sampling.guidance_scale:g}{by_context}"


def by_guidance(generation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What was found of images drawn with each guidance, where the first is none."""
    return {UNGUIDED: generation, **generation.get("guided", {})}
