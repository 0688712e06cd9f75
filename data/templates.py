"""Templates: a label becomes a text, as `a photo of a {}`, so that labelled sets teach text too."""

from collections.abc import Sequence

from .order import hashed


def check_templates(templates: Sequence[str]) -> None:
    """Refuse a template that has not exactly one place for the label.

    Raises:
        ValueError: names it.
    """
    for template in templates:
        braces = [c for c in template if c in "{}"]
        if "{}" not in template or len(braces) != 2:
            raise ValueError(f"a template must have exactly one {{}}, got {template!r}")


def phrase(template: str, label: str) -> str:
    """Put a label into its template."""
    return template.replace("{}", label)


def every_phrase(templates: Sequence[str], label: str) -> list[str]:
    """A label in each template; by itself where there is none."""
    return [phrase(template, label) for template in templates] or [label]


def choose_phrase(templates: Sequence[str], label: str, seed: int, epoch: int, index: int) -> str:
    """Draw the template that image `index` shows in an epoch: a pure function of its arguments."""
    phrases = every_phrase(templates, label)
    return phrases[hashed(seed, epoch, index, 4) % len(phrases)]
