"""Labels as text: every template has its turn, and the choice is pure."""

from collections.abc import Callable

import pytest

from data import Batches, Framing, Pair, every_phrase, pairs_from
from data.templates import choose_phrase

TEMPLATES = ("a photo of a {}", "{}, drawn", "my {}.")


def test_a_label_stands_in_every_template_and_alone_without() -> None:
    assert every_phrase(TEMPLATES, "cat") == ["a photo of a cat", "cat, drawn", "my cat."]
    assert every_phrase((), "cat") == ["cat"]
    assert every_phrase(("a {}",), "{0} {x}") == ["a {0} {x}"]  # a label is no template


def test_the_choice_is_pure_and_every_template_has_its_turn() -> None:
    drawn = [choose_phrase(TEMPLATES, "cat", 0, epoch, 7) for epoch in range(600)]
    assert drawn == [choose_phrase(TEMPLATES, "cat", 0, epoch, 7) for epoch in range(600)]
    assert all(140 < drawn.count(text) < 260 for text in every_phrase(TEMPLATES, "cat"))
    many = tuple(f"{{}} {n}" for n in range(50))
    for changed in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert choose_phrase(many, "cat", *changed) != choose_phrase(many, "cat", 0, 0, 0)


def test_a_batch_has_labels_and_phrases_whatever_the_world(
    make_pairs: Callable[[int], list[Pair]],
) -> None:
    source = pairs_from("little", make_pairs(10), skipped={})
    draw = {"batch_size": 4, "seed": 1, "templates": TEMPLATES}
    alone = Batches(source, Framing(size=8), **draw).at(4)
    for caption, text in zip(alone.captions, alone.phrases, strict=True):
        assert text in every_phrase(TEMPLATES, caption)
    shares = [Batches(source, Framing(size=8), rank=r, world=4, **draw).at(4) for r in range(4)]
    assert alone.phrases == sum((share.phrases for share in shares), ())
    plain = Batches(source, Framing(size=8), batch_size=4, seed=1).at(4)
    assert plain.captions == plain.phrases == alone.captions


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a {name}", "{{}}", "} {} {", "{"])
def test_a_template_with_no_one_place_for_the_label_is_refused(
    make_pairs: Callable[[int], list[Pair]], template: str
) -> None:
    source = pairs_from("little", make_pairs(4), skipped={})
    with pytest.raises(
        ValueError, match=r"a template must have exactly one \{\}, got ."
    ) as refused:
        Batches(source, Framing(size=8), batch_size=4, seed=1, templates=("a {}", template))
    assert template in str(refused.value)
