"""Charts and pictures of a page, and how hostile texts look in them."""

import re

import pytest

from recipes.engine.charts import Bars, Histogram, columns_of
from recipes.engine.gallery import Picture, visible


def test_columns_hold_every_number_once() -> None:
    assert columns_of({3: 5, 5: 1}) == [("3", 5), ("4", 0), ("5", 1)]
    wide = dict.fromkeys(range(0, 1_000, 7), 2)
    assert sum(count for _, count in columns_of(wide)) == 2 * len(wide)
    assert columns_of(wide)[1] == ("50 to 99", 14) and len(columns_of(wide)) <= 40


def test_a_few_giants_do_not_flatten_a_histogram() -> None:
    columns = columns_of({**dict.fromkeys(range(100, 150), 20), 90_000: 2})
    assert columns[-1] == ("150 or more", 2) and len(columns) == 26


def test_the_longest_bar_is_as_long_as_the_chart() -> None:
    html = Bars(title="t", counts=[("a", 1), ("b", 4)]).html()
    assert re.findall(r'rect width="(.*?)%"', html) == ["25.00", "100.00"]
    html = Histogram(title="t", counts={1: 1, 2: 4}).html()
    assert re.findall(r'height="([\d.]*)%"><title>', html) == ["25.00", "100.00"]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="the histogram 't' has no numbers"):
        Histogram(title="t", counts={})
    with pytest.raises(ValueError, match="must be a JPEG file, key is not"):
        Picture(jpeg=b"\x89PNG", width=1, height=1, texts=[], note="key")


def test_invisible_characters_are_named_and_those_that_join_letters_stay() -> None:
    assert visible("a\u202eb\u2028c\x07d\ufeff") == "a[U+202E]b[U+2028]c[U+0007]d[U+FEFF]"
    family = "\N{MAN}\u200d\N{GIRL}"
    assert visible(family) == family
    assert visible("x" * 300, 10) == "x" * 9 + "…"
