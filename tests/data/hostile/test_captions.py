"""Captions made to do harm are text, or are refused by their reason."""

from typing import Any

import pytest

from data import (
    parse_captions,
)
from data.captions import DamagedCaption
from tests.data.hostile.poison import DEEP, PNG, POISON

CAPTIONS: dict[str, tuple[bytes, tuple[str, ...] | str]] = {
    "nothing": (b"", "no caption"),
    "zeros": (bytes(999), "no caption"),
    "a byte order mark": (b"\xef\xbb\xbf", "no caption"),
    "UTF-16": ("a dog".encode("utf-16"), "caption not UTF-8"),
    "half a character": ("a Hündchen".encode()[:4], "caption not UTF-8"),
    "an overlong slash": (b"a \xc0\xaf dog", "caption not UTF-8"),
    "a surrogate as UTF-8": (b"a \xed\xa0\x80 dog", "caption not UTF-8"),
    "1 MB on a line": (b"x" * 2**20, "caption too long"),
    "1 MB of lines": (b"x\n" * 2**19, "too many captions"),
    "a byte more than 1 MB": (b"x" * (2**20 + 1), "caption file too large"),
    "256 kB of white space": (b" \n\t\r" * 2**16, "no caption"),
    "line ends of every kind": (b"a\rb\x0bc\x0cd\x1ce\xc2\x85f\xe2\x80\xa8g", tuple("abcdefg")),
    "written from the right": ("a \u202egod\u202c".encode(), ("a god",)),
    "control characters": (b"\x1b[2J\x07a\x00 dog\x7f", ("[2Ja dog",)),
    "a lone combining mark": ("\u0301".encode(), ("\u0301",)),
    "an image": (PNG, "caption not UTF-8"),
    "a pickle": (POISON, "caption not UTF-8"),
    "code": (
        b"__import__('os').system('touch canary')",
        ("__import__('os').system('touch canary')",),
    ),
}
JSONS: dict[str, tuple[bytes, tuple[str, ...] | str]] = {
    "nothing": (b"", "caption not JSON"),
    "lists in lists": (DEEP, "caption nested too deep"),
    "lists in lists in a field": (b'{"a":' + DEEP + b"}", "caption nested too deep"),
    "objects in objects": (b'{"a":' * 99_999 + b"1" + b"}" * 99_999, "caption nested too deep"),
    "not a number": (b'{"caption": "a", "x": NaN}', ("a",)),
    "infinite": (b'{"caption": "a", "x": -Infinity}', ("a",)),
    "a float past all floats": (b'{"caption": "a", "x": 1e999999}', ("a",)),
    "5,000 digits": (b'{"caption": "a", "x": ' + b"1" * 5_000 + b"}", "caption not JSON"),
    "a field twice": (b'{"captions": ["a"], "captions": ["b"]}', "caption field twice"),
    "another field twice": (b'{"caption": "a", "x": 1, "x": 2}', "caption field twice"),
    "a list in a list": (b'{"captions": [["a"]]}', "caption not text"),
    "a caption that is a list": (b'{"caption": ["a"]}', "caption not text"),
    "captions that are a text": (b'{"captions": "abc"}', "caption not text"),
    "captions that are an object": (b'{"captions": {"a": "b"}}', "caption not text"),
    "a caption that is true": (b'{"caption": true}', "caption not text"),
    "no captions": (b'{"captions": []}', "no caption"),
    "half a pair of surrogates": (b'{"caption": "a \\udc80"}', "caption not UTF-8"),
    "a pair of surrogates": (b'{"caption": "a \\ud83d\\udc36"}', ("a \U0001f436",)),
    "a zero character": (b'{"caption": "a\\u0000b"}', ("ab",)),
    "a hundred thousand captions": (
        b'{"captions": [' + b'"a",' * 99_999 + b'"a"]}',
        "too many captions",
    ),
    "more after it": (b'{"caption": "a"} x', "caption not JSON"),
    "cut": (b'{"caption": "a', "caption not JSON"),
    "a bare text": (b'"a"', "no caption"),
    "null": (b"null", "no caption"),
    "code": (b'{"caption": "a", "py/object": "os.system"}', ("a",)),
}


@pytest.mark.parametrize(
    ("raw", "kind", "outcome"),
    [
        pytest.param(raw, kind, outcome, id=f"{kind}: {name}")
        for kind, files in (("txt", CAPTIONS), ("json", JSONS))
        for name, (raw, outcome) in files.items()
    ],
)
def test_captions_are_text_or_refused(raw: bytes, kind: Any, outcome: object) -> None:
    try:
        assert parse_captions(raw, kind) == outcome
    except DamagedCaption as error:
        assert error.reason == outcome
