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

    Each scale of the guidance by the condition, if there is one, meets each of that by the context.
    """
    own, asked = experiment.sampling, experiment.evaluation
    is_conditional = experiment.ar.get("condition", "text") != "none"
    by_condition = asked.guidance_scales if is_conditional else ()
    found = [
        replace(own, guidance_scale=guidance, context_scale=context)
        for context in (own.context_scale, *asked.context_scales)
        for guidance in (own.guidance_scale, *by_condition)
    ]
    return {name_of(each): each for each in found}


def name_of(sampling: Sampling) -> str:
    """The scale of the guidance by the condition, and that by the context if there is one."""
    by_context = "" if sampling.context_scale == 1.0 else f", context {sampling.context_scale:g}"
    return f"{sampling.guidance_scale:g}{by_context}"


def picture_of(sampling: Sampling) -> str:
    """The name of a picture of what was drawn so."""
    by_context = "" if sampling.context_scale == 1.0 else f"-context-{sampling.context_scale:g}"
    return f"generated-{sampling.guidance_scale:g}{by_context}"


def by_guidance(generation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a comparison's run found of images drawn with each guidance; its own is none."""
    return {UNGUIDED: generation, **generation.get("guided", {})}
