"""From a folder or from scenes to shards, and from shards to a training."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from PIL import Image

from data import decoded, in_memory, open_shards, open_source
from recipes import build_shards, train_ar, train_orderer, write_tokens
from recipes.engine.cli import run as start
from recipes.experiment import DataSettings, Experiment


def build(*arguments: str) -> None:
    start(build_shards.main, build_shards.Config, arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pairs, one in a sub-folder, and a truncated image."""
    (tmp_path / "mine/more").mkdir(parents=True)
    for key in ("mine/a", "mine/more/b", "mine/c"):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / f"{key}.png")
        (tmp_path / f"{key}.txt").write_text(f"a picture\nthe picture {key[-1]}\n")
    whole = (tmp_path / "mine/c.png").read_bytes()
    (tmp_path / "mine/c.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "mine"


def test_a_folder_becomes_shards_and_what_is_damaged_is_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    build(f"--source={folder}", f"--out={out}")
    assert capsys.readouterr() == (
        f"{out}: 2 samples of train\nskipped: 1 truncated image\n",
        "",
    )
    split = json.loads((out / "manifest.json").read_text())["splits"]["train"]
    assert (split["samples"], split["captions"]) == (2, 4)
    assert split["skipped"] == {"truncated image": 1}
    pairs = in_memory(open_source([out], "train", image_size=16), 16)
    assert pairs.images.shape == (2, 3, 16, 16)
    assert pairs.captions == (
        ("a picture", "the picture a"),
        ("a picture", "the picture b"),
    )


def test_a_table_becomes_shards(folder: Path, tmp_path: Path) -> None:
    table = folder / "pairs.csv"
    table.write_text("file,short,long\na.png,a,an a\nmore/b.png,b,a b\nc.png,c,a c\n")
    out = tmp_path / "shards"
    build(f"--source={table}", "--image=file", "--captions=[short, long]", f"--out={out}")
    pairs = in_memory(open_source([out], "train", image_size=16), 16)
    assert pairs.captions == (("a", "an a"), ("b", "a b"))
    split = json.loads((out / "manifest.json").read_text())["splits"]["train"]
    assert split["skipped"] == {"truncated image": 1}


def test_a_coco_file_becomes_shards(folder: Path, tmp_path: Path) -> None:
    images = [{"filename": "a.png", "split": "val", "sentences": [{"raw": "a"}, {"raw": "an a"}]}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    out = tmp_path / "shards"
    build(
        f"--source={tmp_path / 'coco.json'}",
        f"--image_folder={folder}",
        "--split=val",
        f"--out={out}",
    )
    assert in_memory(open_source([out], "val", image_size=16), 16).captions == (("a", "an a"),)


def downloaded(folder: Path) -> dict[str, bytes]:
    """The files of three samples as img2dataset names them, one without an image."""
    files = {}
    for number in range(3):
        image = folder / f"{number}.jpg"
        Image.new("RGB", (40, 30), (90 * number, 0, 0)).save(image)
        about = {"caption": f"picture {number}", "url": "http://x", "status": "success", "key": "0"}
        files[f"00000000{number}.jpg"] = image.read_bytes()
        files[f"00000000{number}.txt"] = about["caption"].encode()
        files[f"00000000{number}.json"] = json.dumps(about).encode()
        image.unlink()
    del files["000000002.jpg"]
    return files


@pytest.mark.parametrize("output_format", ["files", "webdataset", "parquet"])
def test_what_img2dataset_wrote_becomes_shards(tmp_path: Path, output_format: str) -> None:
    files, source, options = downloaded(tmp_path), tmp_path / "got", []
    source.mkdir()
    (source / "00000_stats.json").write_text('{"count": 3, "successes": 2}')
    if output_format == "files":
        (source / "00000").mkdir()
        for name, content in files.items():
            (source / "00000" / name).write_bytes(content)
    elif output_format == "webdataset":
        with tarfile.open(source / "00000.tar", "w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        images = [files.get(f"00000000{number}.jpg") for number in range(3)]
        captions = [f"picture {number}" for number in range(3)]
        table = pyarrow.table({"jpg": images, "caption": captions})
        source, options = source / "00000.parquet", ["--image=jpg"]
        pyarrow.parquet.write_table(table, source)
    out = tmp_path / "shards"
    build(f"--source={source}", f"--out={out}", "--size=20", "--fit=longer", *options)
    shards = open_shards(out, "train")
    assert [shards.captions_of(n) for n in range(len(shards))] == [("picture 0",), ("picture 1",)]
    assert decoded(shards.read(1)).image.shape == (15, 20, 3)
    split = json.loads((out / "manifest.json").read_text())["splits"]["train"]
    assert split["skipped"] == {"no image": 1}


def test_tars_of_one_split_are_built_anew(folder: Path, tmp_path: Path) -> None:
    build(f"--source={folder}", f"--out={tmp_path / 'a'}", "--split=train")
    build("--source=scenes", "--count=3", f"--out={tmp_path / 'a'}", "--split=test")
    build(f"--source={tmp_path / 'a'}", "--source_split=test", f"--out={tmp_path / 'b'}")
    built, before = open_shards(tmp_path / "b", "train"), open_shards(tmp_path / "a", "test")
    assert [built.read(n) for n in range(3)] == [before.read(n) for n in range(3)]


def test_a_dataset_becomes_shards_and_classes_come_along(tmp_path: Path) -> None:
    files = downloaded(tmp_path)
    images = [{"bytes": files[f"00000000{n}.jpg"], "path": None} for n in range(2)]
    rows = datasets.Dataset.from_dict({"image": images, "text": ["a", "b"], "kind": [3, 5]})
    rows.save_to_disk(tmp_path / "saved")
    columns = ["--captions=[text]", "--label=kind"]
    build(f"--source=hf:{tmp_path / 'saved'}", *columns, f"--out={tmp_path / 'shards'}")
    shards = open_shards(tmp_path / "shards", "train")
    assert [shards.read(n).label for n in range(2)] == ["3", "5"]


def test_a_training_reads_the_shards_that_were_built(tiny: Experiment, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    build("--source=scenes", "--count=20", f"--out={shards}", "--image_format=webp")
    build("--source=scenes", "--count=5", f"--out={shards}", "--split=test", "--per_shard=2")
    assert sorted(path.name for path in shards.iterdir()) == [
        "manifest.json",
        *[f"test-00000{n}.{end}" for n in range(3) for end in ("index.npy", "tar")],
        "train-000000.index.npy",
        "train-000000.tar",
    ]
    data = DataSettings(
        source=(str(shards),), test="test", unseen=None, train_count=None, test_count=None
    )
    experiment = replace(tiny, data=data, out=tmp_path / "run")
    assert len(data.open_test(image_size=16)) == 5
    for stage in (train_orderer, write_tokens, train_ar):
        stage.main(experiment)
    assert (experiment.out / "ar/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source=scenes"], "scenes never end: count must be a number, got null"),
        (["--source=scenes", "--count=0"], "count must be at least 1, got 0"),
        (["--source=scenes", "--count=1", "--split=a/b"], "only, got 'a/b'"),
        (["--source={here}", "--split=train", "--size=9"], "was built with size=None, not 9"),
        (["--source={here}/none.csv", "--split=new"], "there is no table {here}/none.csv"),
    ],
)
def test_what_cannot_be_built_is_refused_and_nothing_is_lost(
    arguments: list[str],
    sentence: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "shards"
    build(f"--source={folder}", f"--out={out}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        build(*[each.format(here=folder) for each in arguments], f"--out={out}")
    said = capsys.readouterr().err
    assert refused.value.code == 2
    sentence = sentence.format(here=folder)
    assert said.startswith("error: ") and said.endswith(f"{sentence}\n") and said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
