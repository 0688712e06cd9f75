import base64
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from recipes.engine.page import Section, Table, markdown_table, write_page

HOSTILE = '<script src="http://a.b/c.js">alert("1")</script> & \'"><img onerror=x> \ud800'
TABLE = Table(
    columns=["prefix", "R@1", "PSNR (dB)", "note"],
    rows=[[1, 0.5, 20.25, "a|b"], [16, 0.98765, None, ""]],
)


class Reader(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def page(tmp_path, picture) -> str:
    sections = [
        Section(heading="One", text="a\n\nb", pictures=[(picture, "strips"), (picture, HOSTILE)]),
        Section(heading=HOSTILE, text=HOSTILE, tables=[TABLE, Table(columns=["x"], rows=[])]),
        Section(heading="Three", tables=[Table(columns=[HOSTILE], rows=[[HOSTILE]])]),
    ]
    write_page(tmp_path / "new" / "report.html", HOSTILE, HOSTILE, sections)
    return (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_a_page_has_every_section_picture_and_table(page):
    reader = Reader(page)
    assert not reader.open
    assert len(reader.all("section")) == len(reader.all("h2")) == 3
    assert len(reader.all("figure")) == len(reader.all("img")) == 2
    assert len(reader.all("table")) == 3
    assert len(reader.all("tr")) == 3 + 1 + 2
    assert page.count("<p>") == 1 + 2 + 1


def test_a_page_needs_no_other_file(page, picture):
    reader = Reader(page)
    sources = [image["src"] for image in reader.all("img")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert base64.b64decode(sources[0].split(",")[1]) == picture.read_bytes()
    references = {"src", "href", "srcset", "data", "action", "background", "poster"}
    found = [tag for tag, attributes in reader.tags if references & attributes.keys()]
    assert found == ["img", "img"]
    styles = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|http", styles)
    assert "default-src 'none'" in page


def test_a_text_is_shown_as_it_is_and_never_obeyed(page):
    reader = Reader(page)
    shown = HOSTILE.encode("utf-8", errors="replace").decode()
    assert not reader.all("script")
    assert not any("onerror" in attributes for _, attributes in reader.tags)
    assert reader.all("img")[1]["alt"] == shown
    # Its title twice, the intro, a caption, a heading, a text, the head and the cell of a table.
    assert reader.text.count(shown) == reader.text.count("alert") == 8


def test_a_page_is_readable_on_a_phone_and_in_the_dark(page):
    assert 'name="viewport" content="width=device-width' in page
    assert "prefers-color-scheme: dark" in page


def test_columns_of_numbers_are_set_to_the_right(page):
    cells = re.findall(r"<t[hd]( class=\"number\")?>(.*?)</t[hd]>", page)
    right = [text for kind, text in cells if kind]
    assert right == ["prefix", "R@1", "PSNR (dB)", "1", "0.500", "20.2", "16", "0.988", "–"]  # noqa: RUF001


def test_a_markdown_table_lines_up():
    assert markdown_table(TABLE).splitlines() == [
        "| prefix |   R@1 | PSNR (dB) | note |",
        "| -----: | ----: | --------: | ---- |",
        "|      1 | 0.500 |      20.2 | a\\|b |",
        "|     16 | 0.988 |         – |      |",  # noqa: RUF001
    ]


def test_a_markdown_table_passes_no_control_characters_on():
    table = Table(columns=["a"], rows=[["x\n| y \x1b[31m\r\0"]])
    assert markdown_table(table).splitlines()[2:] == ["| x \\| y [31m |"]


def test_a_table_without_rows_has_a_head():
    assert markdown_table(Table(columns=["a", "b"], rows=[])).splitlines() == [
        "| a   | b   |",
        "| --- | --- |",
    ]


def test_an_uneven_table_is_refused():
    with pytest.raises(ValueError, match="row 2 of a table has 1 cells for 2 columns"):
        Table(columns=["a", "b"], rows=[[1, 2], [3]])
    with pytest.raises(ValueError, match="a table must have at least 1 column, got 0"):
        Table(columns=[], rows=[])


def test_a_picture_that_is_absent_or_no_png_is_refused_and_the_old_page_stays(tmp_path):
    path, other = tmp_path / "report.html", tmp_path / "a.jpg"
    path.write_text("old")
    other.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"must be a PNG file, got .*a\.jpg"):
        write_page(path, "t", "i", [Section(heading="h", pictures=[(other, "a")])])
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        write_page(path, "t", "i", [Section(heading="h", pictures=[(tmp_path / "none.png", "a")])])
    assert path.read_text() == "old"
