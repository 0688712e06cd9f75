"""Hugging Face datasets come through the same door, decoded by us."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from data import (
    Columns,
    HFPairs,
    decoded,
    encode_image,
    in_memory,
    open_source,
    pairs_from_hf,
)

IMAGES = [np.full((6, 8, 3), level, np.uint8) for level in (10, 90, 200)]
SHORT = Columns(image="picture", captions=("short",))
TEXTS = [["a dark picture", "dark"], ["a grey picture", "grey"], ["a light picture", "light"]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def rows() -> datasets.Dataset:
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "texts": datasets.List(datasets.Value("string")),
            "short": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["dark", "grey", "light"]),
        }
    )
    table = {
        "picture": [{"bytes": encode_image(image), "path": None} for image in IMAGES],
        "texts": TEXTS,
        "short": [texts[1] for texts in TEXTS],
        "kind": [0, 1, 2],
    }
    return datasets.Dataset.from_dict(table, features=features)


@pytest.fixture
def saved(rows: datasets.Dataset, tmp_path: Path) -> str:
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_a_saved_dataset_gives_its_images_captions_and_classes(saved: str) -> None:
    found = list(
        pairs_from_hf(saved, "train", Columns(image="picture", captions=("texts",), label="kind"))
    )
    assert [pair.captions for pair in found] == [tuple(texts) for texts in TEXTS]
    assert [pair.label for pair in found] == ["0", "1", "2"]
    for pair, image in zip(map(decoded, found), IMAGES, strict=True):
        assert np.array_equal(pair.image, image)


def test_random_access_gives_what_reading_in_order_gives(saved: str) -> None:
    columns = Columns(image="picture", captions=("short", "texts"))
    source = HFPairs(saved, "train", columns)
    assert [source.read(n) for n in range(3)] == list(pairs_from_hf(saved, "train", columns))
    assert source.captions_of(1) == source.read(1).captions == ("grey", *TEXTS[1])
    assert (len(source), source.counts, source.name) == (3, (3,), "saved/train")
    assert source.fingerprint == HFPairs(saved, "train", columns).fingerprint
    assert source.fingerprint != HFPairs(saved, "train", SHORT).fingerprint


def test_parquet_files_are_streamed(rows: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows.to_parquet(tmp_path / "set" / "train.parquet")
    streamed = list(pairs_from_hf(str(tmp_path / "set"), "train", SHORT, streaming=True))
    assert streamed == list(pairs_from_hf(str(tmp_path / "set"), "train", SHORT))
    assert [pair.captions for pair in streamed] == [("dark",), ("grey",), ("light",)]


def test_a_folder_of_images_with_metadata_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode_image(IMAGES[0]))
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "dark"}\n')
    (pair,) = pairs_from_hf(str(folder), "train", Columns(captions=("text",)))
    assert pair.captions == ("dark",) and np.array_equal(decoded(pair).image, IMAGES[0])


def test_a_path_outside_the_dataset_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode_image(IMAGES[0]))
    (tmp_path / "set").mkdir()
    cells = [{"bytes": None, "path": str(secret)}, {"bytes": None, "path": "../secret.png"}]
    table = pyarrow.table({"image": cells, "caption": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "set" / "train.parquet")
    found = list(pairs_from_hf(str(tmp_path / "set"), "train", Columns()))
    assert [sample.reason for sample in found] == ["image outside the folder"] * 2


def test_what_is_not_there_is_refused_in_a_sentence(saved: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'image', it has picture, texts"):
        pairs_from_hf(saved, "train", Columns())
    with pytest.raises(ValueError, match="has no split 'val' that can be read"):
        pairs_from_hf(saved, "val", SHORT)
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
        pairs_from_hf(str(tmp_path / "nowhere"), "train", Columns())


def test_a_training_opens_a_dataset_like_any_other_source(saved: str) -> None:
    source = open_source([f"hf:{saved}"], "train", image_size=4, columns=SHORT)
    pairs = in_memory(source, 4)
    assert pairs.images.shape == (3, 3, 4, 4) and pairs.captions == (
        ("dark",),
        ("grey",),
        ("light",),
    )


def test_a_dataset_without_splits_is_not_taken_for_every_split(
    rows: datasets.Dataset, tmp_path: Path
) -> None:
    rows.save_to_disk(tmp_path / "alone")
    assert len(HFPairs(str(tmp_path / "alone"), "train", SHORT)) == 3
    with pytest.raises(ValueError, match="has no split 'val' that can be read"):
        HFPairs(str(tmp_path / "alone"), "val", SHORT)
