"""What reading and choosing captions promises."""

import json
from typing import Literal

import pytest

from data import DamagedCaption, choose_caption, parse_captions

Kind = Literal["txt", "json"]


def test_a_text_file_has_one_caption_a_line() -> None:
    raw = "\ufeffa dog\r\n\n  two\t dogs \nein Hündchen 🐶\n".encode()
    assert parse_captions(raw, "txt") == ("a dog", "two dogs", "ein Hündchen 🐶")


def test_a_json_file_has_one_caption_or_many() -> None:
    assert parse_captions(b'{"caption": "a dog", "label": 3}', "json") == ("a dog",)
    assert parse_captions(b'{"captions": ["a", "b", " "]}', "json") == ("a", "b")


def test_control_characters_are_dropped_and_a_caption_is_one_line() -> None:
    assert parse_captions(b"a\x00 d\x1bog\x7f", "txt") == ("a dog",)
    assert parse_captions(b'{"caption": "a\\ndog"}', "json") == ("a dog",)


@pytest.mark.parametrize(
    ("raw", "kind", "reason"),
    [
        (b" \n\n", "txt", "no caption"),
        (b"\xff\xfe", "txt", "caption not UTF-8"),
        (b"x" * 2_001, "txt", "caption too long"),
        (b"x\n" * 65, "txt", "too many captions"),
        (b"x" * 2_000_000, "txt", "caption file too large"),
        (b"{", "json", "caption not JSON"),
        (b"[" * 100_000, "json", "caption nested too deep"),
        (b'{"a":' * 100_000, "json", "caption nested too deep"),
        (b'{"caption": "a", "caption": "b"}', "json", "caption field twice"),
        (b'{"caption": 3}', "json", "caption not text"),
        (b'{"caption": NaN}', "json", "caption not text"),
        (b'{"captions": "a dog"}', "json", "caption not text"),
        (b'{"captions": ["a", null]}', "json", "caption not text"),
        (b'{"caption": "\\ud800"}', "json", "caption not UTF-8"),
        (b'["a dog"]', "json", "no caption"),
        (b'{"title": "a dog"}', "json", "no caption"),
        (b'{"caption": "a", "captions": ["b"]}', "json", "no caption"),
        (b'{"n": ' + b"1" * 10_000 + b"}", "json", "caption not JSON"),
    ],
)
def test_each_odd_file_is_refused_with_its_reason(raw: bytes, kind: Kind, reason: str) -> None:
    with pytest.raises(DamagedCaption) as refused:
        parse_captions(raw, kind)
    assert refused.value.reason == reason


def test_json_text_round_trips() -> None:
    captions = ["a 'quoted' \\ caption", "[[[[[[[[[[[[[[[[[[ brackets", "שלום"]
    raw = json.dumps({"captions": captions}).encode()
    assert parse_captions(raw, "json") == tuple(captions)


def test_the_choice_is_pure_and_every_caption_has_its_turn() -> None:
    captions = [f"caption {n}" for n in range(5)]
    drawn = [choose_caption(captions, 0, epoch, 7) for epoch in range(500)]
    assert drawn == [choose_caption(captions, 0, epoch, 7) for epoch in range(500)]
    assert all(60 < drawn.count(caption) < 140 for caption in captions)


def test_the_choice_depends_on_seed_epoch_and_index() -> None:
    captions = [f"caption {n}" for n in range(50)]
    for changed in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert choose_caption(captions, *changed) != choose_caption(captions, 0, 0, 0)


def test_the_last_caption_is_chosen_as_often_as_asked() -> None:
    captions = ("ring", "red ring", "small red ring")
    drawn = [choose_caption(captions, 0, 0, index, last_share=0.7) for index in range(3_000)]
    # any of three in the other 30%: 0.7 + 0.1
    assert abs(drawn.count("small red ring") / 3_000 - 0.8) < 0.03
    assert set(drawn) == set(captions)
    assert {choose_caption(captions, 0, 0, i, last_share=1.0) for i in range(99)} == {captions[-1]}
