"""Indices from the command line: made, searched by text and image, drawn, and refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data import DamagedImage, open_source
from orderer import Orderer
from orderer.index import RetrievalIndex
from recipes import index, search_index
from recipes.engine.cli import run as start
from recipes.experiment import Experiment


@pytest.fixture(scope="module")
def made(trained: Experiment, tmp_path_factory: pytest.TempPathFactory) -> index.Config:
    """An index of 12 scenes at the prefixes 1, 4 and 16."""
    out = tmp_path_factory.mktemp("index")
    config = index.Config(models=str(trained.out), out=out, count=12, prefixes=(16, 1, 4))
    index.main(config)
    return config


def searched(made: index.Config, *options: str) -> None:
    start(
        search_index.main,
        search_index.Config,
        [f"--models={made.models}", f"--index={made.out}", "--count=3", *options],
    )


def test_it_holds_the_orderers_own_embeddings(made: index.Config) -> None:
    found, model = RetrievalIndex.open(made.out), Orderer.from_pretrained(f"{made.models}/orderer")
    pairs = open_source(("scenes",), "val", image_size=model.config.image_size, count=12)
    assert found.keys == pairs.keys and found.captions == tuple(map(tuple, pairs.captions))
    assert sorted(found.embeddings) == [1, 4, 16]
    for k in (1, 4, 16):
        wanted = model.embed_images(pairs.images, prefix=k)
        torch.testing.assert_close(found.at(k), wanted, atol=2e-6, rtol=0)


def test_it_says_what_it_was_made_of(made: index.Config) -> None:
    about = json.loads((made.out / "index.json").read_text())
    assert about["data"]["source"] == ["scenes"] and about["data"]["split"] == "val"
    assert about["orderer"] == {"name": f"{made.models}/orderer", "commit": None}
    assert about["format_version"] == 1 and about["skipped"] == {}


def test_half_precision_takes_half_the_place(made: index.Config, tmp_path: Path) -> None:
    index.main(replace(made, out=tmp_path, precision="fp16", captions=False))
    half, whole = RetrievalIndex.open(tmp_path), RetrievalIndex.open(made.out)
    assert half.at().dtype == torch.float16 and not any(half.captions)
    torch.testing.assert_close(half.at().float(), whole.at(), atol=1e-3, rtol=0)


def test_an_image_finds_itself_first_and_the_hits_are_drawn(
    made: index.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = Orderer.from_pretrained(f"{made.models}/orderer").config.image_size
    pairs = open_source(("scenes",), "val", image_size=size, count=12)
    file = tmp_path / "scene.png"
    Image.fromarray(pairs.images[5].permute(1, 2, 0).numpy()).save(file)
    searched(made, f"--images=[{file}]", "--texts=['a red ring']", f"--picture={tmp_path}/hits.png")
    text, *hits, picture = capsys.readouterr().out.splitlines()
    assert text == "a red ring" and hits[3] == str(file)
    assert hits[4].startswith(f"    1.000 {pairs.keys[5]} {pairs.captions[5][0]}")
    assert len(hits) == 7 and picture == f"{tmp_path}/hits.png"
    with Image.open(picture) as drawn:
        assert drawn.width > 3 * drawn.height / 2 > 100  # two rows of four


def test_a_coarse_search_says_what_share_it_found(
    made: index.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(made, "--texts=['a red ring']", "--coarse=1", "--channels=4", "--candidates=12")
    found = capsys.readouterr().out.splitlines()
    assert found[0] == "1.000 of the exact hits are among those found from 1 tokens"
    searched(made, "--texts=['a red ring']", "--prefix=16")
    assert capsys.readouterr().out.splitlines() == found[1:]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "a search needs texts or images, got none"),
        (("--texts=['']",), "caption 0 (from 0) has no word, got ''"),
        (("--texts=[a]", "--prefix=2"), "this index has the prefixes 1, 4, 16, got 2"),
        (("--texts=[a]", "--coarse=3"), "this index has the prefixes 1, 4, 16, got 3"),
        (("--texts=[a]", "--channels=3"), "channels are those of a coarse search, got 3 without"),
        (("--texts=[a]", "--coarse=1", "--candidates=2"), "3 hits need as many candidates, got 2"),
        (
            ("--texts=[a]", "--coarse=16"),
            "coarse must be below the prefix that ranks, 16, got 16",
        ),
        (("--texts=[a]", "--picture=hits.jpg"), "picture must end in .png, got hits.jpg"),
        (("--texts=[a]", "--count=0"), "count must be at least 1, got 0"),
        (("--images=[nowhere.jpg]",), "No such file or directory: nowhere.jpg"),
    ],
)
def test_what_cannot_be_found_is_refused(
    made: index.Config,
    options: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused:
        searched(made, *options)
    assert refused.value.code == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_file_that_is_no_image_is_refused(made: index.Config, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_text("a cat")
    config = search_index.Config(models=made.models, index=made.out, images=(tmp_path / "cat.jpg",))
    with pytest.raises(ValueError, match=r"cat\.jpg is no image to search by") as refused:
        search_index.main(config)
    assert isinstance(refused.value.__cause__, DamagedImage)


def test_an_index_of_another_orderer_is_refused(
    made: index.Config, trained: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(made, models=str(trained.out / "joint"))
    with pytest.raises(SystemExit) as refused:
        searched(other, "--texts=[a]")
    assert refused.value.code == 2
    assert "this index was made by another orderer" in capsys.readouterr().err


def test_an_index_of_other_things_is_not_buried(
    made: index.Config, trained: Experiment, tmp_path: Path
) -> None:
    own = replace(made, out=tmp_path)
    index.main(own)
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(ValueError, match="this index was made by another orderer"):
        index.main(replace(own, models=str(trained.out / "joint")))
    with pytest.raises(ValueError, match="an index of other pairs, split val, got test"):
        index.main(replace(own, split="test"))
    assert (tmp_path / "index.json").read_bytes() == before
    index.main(replace(own, count=5))
    assert len(RetrievalIndex.open(tmp_path)) == 5


def test_pairs_that_have_changed_are_not_drawn(made: index.Config, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "index")
    found = RetrievalIndex.open(tmp_path / "index")
    changed = replace(found, about=replace(found.about, fingerprint="0" * 64))
    changed.save(tmp_path / "changed")
    config = search_index.Config(
        models=made.models,
        index=tmp_path / "changed",
        texts=("a red ring",),
        picture=tmp_path / "hits.png",
    )
    with pytest.raises(ValueError, match="has changed since it was indexed"):
        search_index.main(config)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--prefixes=[0, 4]",), "prefixes must be at least 1, got 0"),
        (("--prefixes=[1, 17]",), "prefixes must lie in 1..16, got 17"),
        ((), "scenes never end: count must be a number, got None"),
        (("--models=nowhere/at/all",), "no model can be read from nowhere/at/all: it is no folder"),
    ],
)
def test_what_cannot_be_indexed_is_refused(
    trained: Experiment,
    tmp_path: Path,
    options: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments: list[Any] = [f"--models={trained.out}", f"--out={tmp_path / 'index'}", *options]
    with pytest.raises(SystemExit) as refused:
        start(index.main, index.Config, arguments)
    assert refused.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not (tmp_path / "index").exists()


def test_a_hostile_model_ends_with_exit_code_two(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.out / "orderer", tmp_path / "orderer")
    weights = tmp_path / "orderer/model.safetensors"
    arguments = [f"--models={tmp_path}", "--count=2", f"--out={tmp_path / 'index'}"]
    for damage in (weights.read_bytes()[:1000], b"\x80\x04a pickle", b""):
        weights.write_bytes(damage)
        with pytest.raises(SystemExit) as refused:
            start(index.main, index.Config, arguments)
        said = capsys.readouterr().err
        assert refused.value.code == 2
        assert said.startswith("error: ") and said.count("\n") == 1
