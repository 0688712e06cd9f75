"""Captioned sets of others, from files to figures, by an orderer and by a model of open_clip."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from data import Columns, encode_image
from data.scenes import scene_pairs
from recipes import build_shards, evaluate, evaluate_clip
from recipes.clip import Clip
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment

IMAGES, CAPTIONS = 6, 5 + 6 + 7 + 5 + 6 + 7
"""Of the sets that are made here: five to seven captions an image, as in COCO."""
CPU = torch.device("cpu")


@pytest.fixture
def drawn() -> list[tuple[bytes, list[str]]]:
    pairs = scene_pairs("test", IMAGES, 40)
    return [
        (encode_image(pair.image), [f"{pair.captions[-1]} {n}" for n in range(5 + place % 3)])
        for place, pair in enumerate(pairs)
    ]


@pytest.fixture
def karpathy(drawn: list[tuple[bytes, list[str]]], tmp_path: Path) -> DataSettings:
    """The shards of a file as Karpathy split COCO, in which a training image lies between."""
    (tmp_path / "images/val2014").mkdir(parents=True)
    images = []
    for place, (image, captions) in enumerate(drawn):
        name = f"COCO_val2014_{place:012d}.png"
        (tmp_path / "images/val2014" / name).write_bytes(image)
        sentences = [{"raw": caption, "tokens": caption.split()} for caption in captions]
        about = {"filepath": "val2014", "filename": name, "sentences": sentences, "cocoid": place}
        images += [{**about, "split": "test"}, {**about, "split": "restval"}]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    where = [f"--source={tmp_path / 'dataset_coco.json'}", f"--image_folder={tmp_path / 'images'}"]
    shards = tmp_path / "shards"
    start(build_shards.main, build_shards.Config, [*where, "--split=test", f"--out={shards}"])
    return read(str(shards))


@pytest.fixture
def hugging_face(drawn: list[tuple[bytes, list[str]]], tmp_path: Path) -> DataSettings:
    """A dataset with a list of captions in a cell, read as it is."""
    images = [{"bytes": image, "path": None} for image, _ in drawn]
    rows = datasets.Dataset.from_dict({"image": images, "sentences": [said for _, said in drawn]})
    rows = rows.cast_column("image", datasets.Image())
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "saved")
    return read(f"hf:{tmp_path / 'saved'}", columns=Columns(captions=("sentences",)))


def read(source: str, **settings: Any) -> DataSettings:
    return DataSettings(source=(source,), test="test", unseen=None, test_count=None, **settings)


@pytest.fixture(params=["karpathy", "hugging_face"])
def captioned(request: pytest.FixtureRequest) -> DataSettings:
    return request.getfixturevalue(request.param)


def test_ragged_captions_are_all_queries(
    captioned: DataSettings, trained: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(trained.out / "orderer", tmp_path / "run/orderer")
    wanted = Evaluation(tasks=("retrieval",), captions="all", judge="retrieval")
    evaluate.main(replace(trained, data=captioned, evaluation=wanted, out=tmp_path / "run"))
    found = json.loads((tmp_path / "run/evaluation.json").read_text())
    protocol, retrieval = found["protocol"], found["results"]["separate"]["retrieval"]
    assert (protocol["images"], protocol["captions"]) == (IMAGES, CAPTIONS)
    assert list(retrieval["text_to_image"]) == ["1", "2", "4", "8", "16"]
    shares = retrieval["text_to_image"]["16"]["r1"] * CAPTIONS
    assert shares == pytest.approx(round(shares))
    for at in retrieval["intervals"].values():
        for recalls in at.values():
            assert set(recalls) == {"r1", "r5", "r10"}
            assert all(0 <= one["low"] <= one["high"] <= 1 for one in recalls.values())
    assert "1000 draws of as many images" in protocol["intervals"]


@pytest.fixture
def tiny_clip(tmp_path: Path) -> str:
    """A model that open_clip knows as `tiny-clip`, as NAME@FILE."""
    vision = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8}
    text = {"width": 16, "heads": 2, "layers": 1}
    settings = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    foreign = {**settings, "text_cfg": {**text, "hf_tokenizer_name": "somebody/pieces"}}
    (tmp_path / "names").mkdir()
    (tmp_path / "names/tiny-clip.json").write_text(json.dumps(settings))
    (tmp_path / "names/tiny-foreign.json").write_text(json.dumps(foreign))
    open_clip.add_model_config(tmp_path / "names")
    save_file(open_clip.CLIP(**settings).state_dict(), tmp_path / "clip.safetensors")
    return f"tiny-clip@{tmp_path / 'clip.safetensors'}"


def test_a_model_of_open_clip_is_measured_by_the_same_code(
    captioned: DataSettings, tiny_clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clip"
    evaluate_clip.main(evaluate_clip.Config(model=tiny_clip, data=captioned, out=out))
    found = json.loads((out / "evaluation.json").read_text())
    assert (found["protocol"]["images"], found["protocol"]["captions"]) == (IMAGES, CAPTIONS)
    retrieval = found["results"]["clip"]["retrieval"]
    assert set(retrieval) == {"image_to_text", "text_to_image", "ties", "intervals"}
    assert list(retrieval["text_to_image"]) == ["1"]
    said = capsys.readouterr().err.splitlines()  # the weights are random
    assert any(line.startswith("warning: text_to_image R@1 is 0.") for line in said)
    assert all("below 5 times chance (0.8333)" in line for line in said if "warning" in line)


@pytest.mark.parametrize("world", [2, 5])
def test_several_processes_measure_what_one_does(
    world: int,
    tiny_clip: str,
    karpathy: DataSettings,
    forked: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With five, one has no image: there are three batches of them."""
    for module in ("clip", "embedding"):
        monkeypatch.setattr(f"recipes.{module}.BATCH", 2)
    found = {}
    for processes in (1, world):
        out = tmp_path / f"of-{processes}"
        config = evaluate_clip.Config(model=tiny_clip, data=karpathy, out=out)
        assert forked.run(lambda c=config: evaluate_clip.main(c), processes) == [0] * processes
        found[processes] = json.loads((out / "evaluation.json").read_text())
    assert found[world]["results"] == found[1]["results"]
    assert found[world]["protocol"] == found[1]["protocol"]
    assert (found[world]["protocol"]["images"], found[world]["protocol"]["captions"]) == (
        IMAGES, CAPTIONS,
    )  # fmt: skip


def test_images_are_shown_and_captions_read_as_open_clip_does(tiny_clip: str) -> None:
    name, _, file = tiny_clip.partition("@")
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=file)
    image = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
    clip, captions = Clip(tiny_clip, CPU), ["a ring", "word " * 200]
    assert torch.equal(clip.pixels(image), transform(Image.fromarray(image)))
    with torch.no_grad():
        texts = model.eval().encode_text(open_clip.get_tokenizer(name)(captions), normalize=True)
        images = model.encode_image(transform(Image.fromarray(image))[None], normalize=True)
    torch.testing.assert_close(clip.embed_texts(captions), texts)
    torch.testing.assert_close(clip.embed_images(clip.pixels(image)[None]), images)


def test_the_batch_does_not_matter(tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, pixels = Clip(tiny_clip, CPU), torch.rand(5, 3, 16, 16)
    whole = clip.embed_images(pixels)
    monkeypatch.setattr("recipes.clip.BATCH", 2)
    torch.testing.assert_close(clip.embed_images(pixels), whole, atol=1e-6, rtol=0)


def test_a_labelled_set_is_classified_in_templates(tiny_clip: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for place, colour in enumerate(["red", "green", "red", "blue"]):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"set/{place}.png")
        (tmp_path / f"set/{place}.txt").write_text(colour)
    out = [f"--source={tmp_path / 'set'}", f"--out={tmp_path / 'shards'}", "--split=test"]
    start(build_shards.main, build_shards.Config, out)
    data = read(str(tmp_path / "shards"), templates=("a {}", "the colour {}"))
    evaluate_clip.main(
        evaluate_clip.Config(
            model=tiny_clip, data=data, tasks=("classification",), out=tmp_path / "clip"
        )
    )
    found = json.loads((tmp_path / "clip/evaluation.json").read_text())
    told = found["results"]["clip"]["classification"]
    assert told["classes"] == 3 and 0 <= told["top1"]["1"] <= told["top5"]["1"] == 1
    assert found["protocol"]["templates"] == ["a {}", "the colour {}"]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """The sentence with which a measurement is refused, before anything is written."""

    def refused(*arguments: str) -> str:
        out = tmp_path / "refused"
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            start(evaluate_clip.main, evaluate_clip.Config, [*arguments, f"--out={out}"])
        assert stopped.value.code == 2 and not out.exists()
        *_, sentence = capsys.readouterr().err.splitlines()
        return sentence.removeprefix("error: ")

    return refused


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [("visual.", "has no text side: none of its"), ("token", "has no image side: none of its")],
)
def test_a_model_without_one_of_its_sides_is_refused(
    kept: str, sentence: str, tiny_clip: str, refusal: Callable[..., str]
) -> None:
    file = Path(tiny_clip.partition("@")[2])
    some = {name: value for name, value in load_file(file).items() if name.startswith(kept)}
    save_file(some, file)
    assert sentence in refusal(f"--model={tiny_clip}")


def test_what_is_no_model_is_refused(
    tiny_clip: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    file = tiny_clip.partition("@")[2]
    assert refusal(f"--model={tmp_path}").endswith("open_clip_config.json, and no NAME@FILE")
    assert refusal(f"--model=hf-hub:some/body@{file}").startswith("open_clip has no model named")
    said = refusal(f"--model=tiny-foreign@{file}")
    assert said == "tiny-foreign is made with somebody/pieces of a hub, and nothing is fetched here"
    assert "no weight file" in refusal("--model=tiny-clip@nowhere.safetensors")
    torch.save({}, tmp_path / "clip.pt")
    assert "is not in safetensors" in refusal(f"--model=tiny-clip@{tmp_path / 'clip.pt'}")
    said = refusal(f"--model=ViT-B-32@{file}")
    assert said.startswith("no open_clip model can be read from ViT-B-32@")


def test_a_split_without_a_pair_is_refused(
    tiny_clip: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    rows = datasets.Dataset.from_dict({"image": [], "caption": []})
    rows = rows.cast(
        datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    )
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "empty")
    where = [f"--model={tiny_clip}", f"--data.source=['hf:{tmp_path / 'empty'}']"]
    where += ["--data.test_count=null", "--data.unseen=null"]
    said = refusal(*where, "--data.test=test")
    assert said == f"{tmp_path / 'empty'} cannot be read, a split of it has no pair"
