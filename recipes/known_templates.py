"""Templates that others measure with, by the name of their set.

Source: open_clip, `open_clip/zero_shot_metadata.py`, https://github.com/mlfoundations/open_clip;
those of Radford et al. 2021, section 3.1.4, https://arxiv.org/abs/2103.00020.
"""

from collections.abc import Sequence

import orderer  # noqa: F401  # before open_clip, which imports torchvision

KNOWN = {
    "open_clip:openai": "OPENAI_IMAGENET_TEMPLATES",
    "open_clip:simple": "SIMPLE_IMAGENET_TEMPLATES",
}
"""The 80 of CLIP's authors, and the 7 of them that do nearly as well."""


def spelled_out(templates: Sequence[str]) -> tuple[str, ...]:
    """Put the templates of a set where its name stands.

    Raises:
        ValueError: for a set of open_clip that nobody knows.
    """
    found: list[str] = []
    for template in templates:
        if template in KNOWN:
            from open_clip import zero_shot_metadata  # slow to import

            found += [fill("{}") for fill in getattr(zero_shot_metadata, KNOWN[template])]
        elif template.startswith("open_clip:"):
            raise ValueError(f"sets of templates are {', '.join(KNOWN)}, got {template}")
        else:
            found.append(template)
    return tuple(found)
