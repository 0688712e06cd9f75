"""A retrieval index: comes back as it was saved, for its own orderer alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orderer import Orderer
from orderer.index import About, RetrievalIndex


@pytest.fixture
def index(tiny_orderer: Orderer) -> RetrievalIndex:
    about = About(
        encoding_hash=tiny_orderer.encoding_hash(),
        embedding_hash=tiny_orderer.embedding_hash(),
        orderer={"name": "runs/demo", "commit": None},
        fingerprint="0" * 64,
        data={"source": ["scenes"]},
    )
    return RetrievalIndex(
        embeddings={k: torch.randn(3, 8) for k in (1, 4)},
        keys=("a", "b", "ü"),
        captions=(("one",), (), ("two", "three")),
        rows=torch.tensor([0, 1, 3]),
        about=about,
    )


@pytest.fixture
def folder(index: RetrievalIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "index")
    return tmp_path / "index"


def test_it_comes_back_as_it_was_saved(index: RetrievalIndex, folder: Path) -> None:
    again = RetrievalIndex.open(folder)
    assert again.embeddings.keys() == {1, 4} and len(again) == 3
    assert all(torch.equal(again.at(k), index.at(k)) for k in (1, 4))
    assert torch.equal(again.at(), index.at(4)) and torch.equal(again.rows, index.rows)
    assert (again.keys, again.captions, again.about) == (index.keys, index.captions, index.about)
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "index.safetensors"]


def test_its_own_orderer_may_search_it(tiny_orderer: Orderer, folder: Path) -> None:
    RetrievalIndex.open(folder).about.check_orderer(tiny_orderer)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("encoder.queries", "encoder"),
        ("readout.project.weight", "readout and text tower"),
        ("text.tower.text_projection", "readout and text tower"),
    ],
)
def test_another_orderer_may_not(tiny_orderer: Orderer, folder: Path, part: str, what: str) -> None:
    with torch.no_grad():
        tiny_orderer.get_parameter(part)[0, 0] += 1
    with pytest.raises(ValueError, match=f"another orderer, runs/demo: its {what} is"):
        RetrievalIndex.open(folder).about.check_orderer(tiny_orderer)


def test_what_embeds_nothing_has_no_part_in_the_hashes(
    tiny_orderer: Orderer, index: RetrievalIndex
) -> None:
    with torch.no_grad():
        tiny_orderer.decoder.null += 1
        tiny_orderer.log_scale += 1
    index.about.check_orderer(tiny_orderer)


def test_a_prefix_that_it_does_not_have_is_refused(index: RetrievalIndex) -> None:
    with pytest.raises(ValueError, match="this index has the prefixes 1, 4, got 2"):
        index.at(2)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is not an index"):
        RetrievalIndex.open(tmp_path)


def test_a_newer_format_is_refused(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(ValueError, match="is an index of format 2, not 1"):
        RetrievalIndex.open(folder)


def test_a_truncated_index_is_refused(folder: Path) -> None:
    path = folder / "index.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"index\.safetensors is damaged"):
        RetrievalIndex.open(folder)


def test_parts_of_two_indices_are_refused(index: RetrievalIndex, folder: Path) -> None:
    other = replace(index, about=replace(index.about, fingerprint="1" * 64))
    other.save(folder.parent / "other")
    (folder.parent / "other/index.json").replace(folder / "index.json")
    with pytest.raises(ValueError, match="is damaged: its parts do not belong together"):
        RetrievalIndex.open(folder)


@pytest.mark.parametrize("part", ["rows", "keys", "captions", "prefix-4"])
def test_a_missing_part_is_refused(folder: Path, part: str) -> None:
    path = folder / "index.safetensors"
    about = json.loads((folder / "index.json").read_text())
    tensors = load_file(path)
    if part == "prefix-4":
        tensors[part] = tensors[part][:2].contiguous()
    else:
        del tensors[part]
    save_file(tensors, path, metadata={"about": about["fingerprint"]})
    with pytest.raises(ValueError, match="its parts do not belong together"):
        RetrievalIndex.open(folder)


def test_an_index_of_unequal_parts_is_not_written(index: RetrievalIndex, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the same images in all its parts"):
        replace(index, keys=("a",)).save(tmp_path / "index")
    assert not (tmp_path / "index").exists()
