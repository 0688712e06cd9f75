"""What reading a folder of images promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data import Damaged, Pair, decoded, encode_image, pairs_from, pairs_from_folder


def test_images_meet_the_captions_beside_them(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    (tmp_path / "dogs").mkdir()
    wanted = make_pairs(3)
    for key, pair in zip(("a", "b.v2", "dogs/a"), wanted, strict=True):
        (tmp_path / f"{key}.PNG").write_bytes(encode_image(pair.image))
        (tmp_path / f"{key}.txt").write_text("\n".join(pair.captions))
    (tmp_path / "notes.md").write_text("ignored")
    found = list(map(decoded, pairs_from_folder(tmp_path)))
    assert [sample.key for sample in found] == ["a", "b.v2", "dogs/a"]
    for sample, pair in zip(found, wanted, strict=True):
        assert isinstance(sample, Pair) and sample.captions == pair.captions
        assert (sample.image == pair.image).all()


def test_what_is_half_or_double_is_counted_by_reason(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    raw = encode_image(make_pairs(1)[0].image)
    files = {
        "good.png": raw, "good.json": b'{"caption": "good"}',
        "alone.png": raw, "orphan.txt": b"no picture",
        "both.png": raw, "both.webp": raw, "both.txt": b"which?",
        "case.png": raw, "case.PNG": raw, "case.txt": b"which?",
        "cut.png": raw[:60], "cut.txt": b"cut",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pairs = pairs_from("folder", map(decoded, pairs_from_folder(tmp_path)), skipped={})
    assert pairs.keys == ("good",)
    assert sum(pairs.skipped.values()) == 5 and pairs.skipped["no caption"] == 1
    assert {"no image", "two images", "key twice"} < set(pairs.skipped)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a local folder"):
        pairs_from_folder(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no images and no captions"):
        pairs_from_folder(tmp_path)


def test_captions_without_any_image_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog")
    assert list(pairs_from_folder(tmp_path)) == [Damaged(key="a", reason="no image")]
    with pytest.raises(ValueError, match="no pair that can be read, skipped: 1 no image"):
        pairs_from("folder", map(decoded, pairs_from_folder(tmp_path)), skipped={})
