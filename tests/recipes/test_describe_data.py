"""The page about a folder of shards: all that is in it, nothing that is obeyed, the same twice."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from data import Pair, open_source, write_shards, write_view
from data.scenes import scene_pairs
from recipes import describe_data
from recipes.engine.cli import run as start
from recipes.engine.cli import with_folder

HOSTILE = (
    '<script src="http://a.b/c.js">alert(1)</script>',
    "\"><img src=//a.b/c.png onerror='alert(2)'>",
    "</p></li><style>@import url(http://a.b)</style>",
    "a \u202egnp.txt\u202c turned around",
    "شجرة خضراء",
    "x" * 1_500,
)


class Reader(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def hostile_pairs() -> Iterator[Pair]:
    for number in range(8):
        image = np.full((20 + 10 * (number % 4), 40, 3), 30 * (number % 4), np.uint8)
        captions = HOSTILE if number == 0 else (f"caption {number}",) * (1 + number)
        yield Pair(key=f"<i>{number}</i>\u202e", image=image, captions=captions, label="<b>c</b>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "<u>set"
    write_shards(
        folder,
        "train",
        hostile_pairs(),
        per_shard=3,
        build={"source": "<script>alert(3)</script>"},
        about="from <script>alert(4)</script>",
        licence="free \u202e<a href='http://a.b'>as air</a>",
    )
    return folder


def page(folder: Path, *arguments: str) -> Path:
    out = folder.parent / "pages" / "page.html"
    start(
        describe_data.main,
        describe_data.Config,
        with_folder([str(folder), f"--out={out}", *arguments]),
    )
    return out


def test_a_hostile_text_is_shown_and_never_obeyed(folder: Path) -> None:
    reader = Reader(page(folder))
    allowed = {
        *("html", "head", "meta", "style", "title", "body", "section", "h1", "h2", "p", "figure"),
        *("figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td", "div", "bdi"),
        *("svg", "rect", "line", "text", "ul", "li", "img", "details", "summary"),
    }
    assert {tag for tag, _ in reader.tags} <= allowed
    assert len([tag for tag, _ in reader.tags if tag == "style"]) == 1
    for text in (*HOSTILE[:3], "alert(3)", "alert(4)", "gnp.txt", "<b>c</b>", "<u>set"):
        assert text in reader.text
    assert "\u202e" not in reader.text
    assert "x" * 200 not in reader.text


def test_a_page_needs_nothing_else(folder: Path) -> None:
    reader = Reader(page(folder))
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"href", "srcset", "data", "action", "background", "poster"} & attributes.keys()
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
    policy = [a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_picture_says_what_it_shows(folder: Path) -> None:
    reader = Reader(page(folder))
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    charts = [attributes for tag, attributes in reader.tags if attributes.get("role") == "img"]
    assert len(images) == 8 + 4 and all(image["alt"] for image in images)  # four groups of copies
    assert all(str(chart["aria-label"]).startswith("Histogram: ") for chart in charts) and charts


def test_a_page_is_the_same_bytes_twice(folder: Path) -> None:
    assert page(folder).read_bytes() == page(folder).read_bytes()


def test_what_is_damaged_is_listed_and_the_rest_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train-000001.tar").unlink()
    reader = Reader(page(folder))
    assert "missing shard" in reader.text and "train-000001.tar" in reader.text
    assert "5 pairs, all of them" in reader.text
    assert "damaged or lost: 3\n" in capsys.readouterr().out


def test_the_name_of_a_split_cannot_turn_the_page_around(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    for name in ("train-000000.tar", "train-000001.tar"):
        (folder / name).rename(folder / name.replace("train", "<b>\u202e"))
    text = Reader(page(folder, "--count=1")).text
    assert "\u202e" not in text and "Of the 6 pairs of <b>[U+202E]" in text


def test_a_set_of_which_nothing_can_be_read_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").write_text("<html>")
    text = Reader(page(tmp_path)).text
    assert "No pair of this split can be read." in text and "broken shard" in text
    assert "source, licence and build options are not known" in text


def test_an_image_in_two_splits_is_shown(folder: Path) -> None:
    assert "The same image in two splits" not in Reader(page(folder)).text
    write_shards(folder, "test", list(hostile_pairs())[:1])
    text = Reader(page(folder)).text
    assert "In train, 2 pairs with an image that test has too, bit by bit." in text
    assert text.index("train: a look") < text.index("test: a look")  # the largest split first
    assert "test: a look" not in Reader(page(folder, "--split=train")).text


def test_a_large_set_is_looked_at_in_part_and_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path / "set", "train", scene_pairs("train", 30, 16))
    text = Reader(page(tmp_path / "set", "--count=10", "--shown=4")).text
    assert "Of the 30 pairs of train, 10 were looked at, evenly spread." in text
    assert "4 pairs, one from each of 4 equal parts" in text


def test_options_from_elsewhere_are_shown_whatever_they_hold(folder: Path) -> None:
    path = folder / "manifest.json"
    hostile = '"build": {"<script>": [1, {"a": "<b>"}]}'
    path.write_text(re.sub(r'"build": \{.*?\}', hostile, path.read_text(), flags=re.S))
    text = Reader(page(folder)).text
    assert "<script>" in text and '[1, {"a": "<b>"}]' in text


def test_a_view_is_described_by_the_pairs_it_chooses(folder: Path, tmp_path: Path) -> None:
    source = open_source([folder], "train", image_size=1)
    rules = [{"rule": "near duplicates", "removed": 1}]
    write_view(tmp_path / "view", "train", [folder], source, np.array([0, 2]), rules)
    text = Reader(page(tmp_path / "view")).text
    assert "2 pairs of images" in text
    assert "Source: a view: train of " in text and "near duplicates (-1)" in text


def test_bad_input_is_refused_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["nowhere"], "nowhere is not a local folder"),
        ([str(folder), "--split=val"], "has no split 'val', it has train"),
        ([str(folder), "--count=0"], "count and shown must be at least 1, got 0 and 36"),
    ):
        with pytest.raises(SystemExit, match="2"):
            start(describe_data.main, describe_data.Config, with_folder(arguments))
        assert message in capsys.readouterr().err


def test_it_is_started_with_the_folder_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(folder, tmp_path / "set")
    out = tmp_path / "page.html"
    words = with_folder([str(tmp_path / "set"), f"--out={out}"])
    start(describe_data.main, describe_data.Config, words)
    said = capsys.readouterr()
    assert (said.err, said.out) == ("", f"damaged or lost: 0\npage: {out} (0.0 MB)\n")
