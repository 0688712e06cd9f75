"""From shards to a view of the good ones, and from the view to a training."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from data import Pair, StoredPair, decoded, open_source, write_shards
from data.manifest import NAME
from data.scenes import scene_pairs
from orderer import Orderer, OrdererProcessor
from recipes import check_shards, curate, train_ar, train_orderer, write_tokens
from recipes.engine.cli import run as start
from recipes.experiment import DataSettings, Experiment
from recipes.scorers import open_scorer

CPU = torch.device("cpu")


def run(*arguments: str | Path) -> None:
    start(curate.main, curate.Config, [str(each) for each in arguments])


def recoded(pair: Pair, key: str, side: int) -> StoredPair:
    file = io.BytesIO()
    Image.fromarray(pair.image).resize((side, side)).save(file, format="JPEG", quality=75)
    return StoredPair(key=key, image=file.getvalue(), captions=pair.captions)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Scenes, of which one is there twice, one in another size too, and one is a test image."""
    train, test = list(scene_pairs("train", 30, 64)), list(scene_pairs("test", 10, 64))
    again = replace(train[3], key="again", captions=("another caption",))
    found = [recoded(train[9], "smaller", 56), recoded(test[4], "leaked", 80)]
    folder = tmp_path / "shards"
    write_shards(folder, "train", [*train, again, *found])
    write_shards(folder, "test", test)
    return folder


def table(said: str) -> dict[str, tuple[int, int]]:
    lines = [line.rsplit(maxsplit=2) for line in said.splitlines()]
    return {
        line[0]: (int(line[1]), int(line[2]))
        for line in lines
        if len(line) == 3 and line[1].isdigit() and line[2].isdigit()
    }


def test_a_view_of_the_good_pairs_is_written_and_said(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "view"
    run(f"--source=[{shards}]", f"--out={out}", f"--against=[{shards}]", "--near_difference=255")
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[:2] == [
        "shards/test: 10 images to keep out of training",
        "shards/train: 33 pairs",
    ]
    assert table(said.out) == {
        "damaged captions": (0, 33),
        "damaged images": (0, 33),
        "exact duplicates": (1, 32),
        "near duplicates": (1, 31),
        "exact leakage": (0, 31),
        "near leakage": (1, 30),
    }
    pairs = open_source([out], "train", image_size=48)
    assert [decoded(pairs.read(place)).key for place in range(30)] == [
        f"train-{number:07d}" for number in range(30)
    ]
    rules = json.loads((out / NAME).read_text())["view"]["train"]["rules"]
    report = json.loads((out / "train.curation.json").read_text())
    assert report["rules"] == rules and report["pairs"] == 30
    assert report["alike"] == [
        ["exact duplicates", "again", "train-0000003"],
        ["near duplicates", "smaller", "train-0000009"],
        ["near leakage", "leaked", "test-0000004"],
    ]
    with Image.open(out / "train.alike.png") as picture:
        assert min(picture.size) > 2 * curate.SHOWN_SIZE


def test_the_same_line_chooses_the_same_pairs(shards: Path, tmp_path: Path) -> None:
    rows = []
    for name in ("one", "two"):
        run(f"--source=[{shards}]", f"--out={tmp_path / name}", "--words_balanced_at=3")
        rows.append((tmp_path / name / "train.rows.npy").read_bytes())
    assert rows[0] == rows[1]
    assert 0 < len(open_source([tmp_path / "one"], "train", image_size=16)) < 30


def test_each_setting_switches_its_rule_on(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        f"--source=[{shards}]",
        f"--out={tmp_path / 'view'}",
        *("--least_words=3", "--most_words=60", "--most_repetition=0.5", "--script=LATIN"),
        *("--most_images_of_caption=40", "--least_side=60", "--most_aspect=1.5", "--near=null"),
    )
    assert table(capsys.readouterr().out) == {
        "damaged captions": (0, 33),
        "word count": (1, 32),  # `another caption`
        "repetition": (0, 32),
        "script": (0, 32),
        "repeated caption": (0, 32),
        "damaged images": (0, 32),
        "resolution": (1, 31),  # the smaller one
        "aspect ratio": (0, 31),
        "exact duplicates": (0, 31),
    }


def test_a_training_reads_the_view(tiny: Experiment, shards: Path, tmp_path: Path) -> None:
    view = tmp_path / "view"
    run(f"--source=[{shards}]", f"--out={view}", f"--against=[{shards}]")
    run(f"--source=[{shards}]", f"--out={view}", "--split=test")
    data = DataSettings(
        source=(str(view),), test="test", unseen=None, train_count=None, test_count=None
    )
    experiment = replace(tiny, data=data, out=tmp_path / "run")
    for stage in (train_orderer, write_tokens, train_ar):
        stage.main(experiment)
    assert (experiment.out / "ar/model.safetensors").is_file()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A very small CLIP, as open_clip saves one."""
    import open_clip

    torch.manual_seed(1)
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 4}
    text = {"width": 16, "heads": 2, "layers": 1}
    settings = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**settings)
    preprocess = {"size": [16, 16], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess})
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_clip_scores_an_image_by_its_best_caption(clip: Path) -> None:
    import open_clip

    scorer = open_scorer(clip, CPU)
    pairs = list(scene_pairs("train", 3, 16))
    captions = [pairs[0].captions, pairs[1].captions[:1], pairs[2].captions[1:3]]
    images = torch.stack([torch.from_numpy(pair.image).permute(2, 0, 1) for pair in pairs])
    assert (scorer.image_size, scorer.fit) == (16, "crop")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    model.eval()
    for score, pair, texts in zip(scorer(images, captions), pairs, captions, strict=True):
        shown = transform(Image.fromarray(pair.image))[None]
        with torch.no_grad():
            image, words = model.encode_image(shown)[0], model.encode_text(tokenizer(texts))
        best = max(torch.cosine_similarity(image, each, dim=0) for each in words)
        assert score == pytest.approx(float(best), abs=1e-5)


def test_an_orderer_scores_too_and_a_caption_it_cannot_read_scores_least(
    tiny_orderer: Orderer, tmp_path: Path
) -> None:
    processor = OrdererProcessor(16, tiny_orderer.config.context_length)
    tiny_orderer.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    scorer = open_scorer(tmp_path, CPU)
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    endless = "word " * 500
    scores = scorer(images, [("a red ring", endless), (endless,), ("a ring", "a red ring")])
    with torch.no_grad():
        embedded = tiny_orderer.embed_images(images)
        texts = tiny_orderer.embed_texts(processor.text(["a ring", "a red ring"]))
    expected = [embedded[0] @ texts[1], -1.0, (texts @ embedded[2]).max()]
    assert scores.tolist() == pytest.approx([float(each) for each in expected], abs=1e-5)


def test_the_least_score_removes_what_is_below_it(
    clip: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"--source=[{shards}]", f"--out={tmp_path / 'all'}", f"--scorer={clip}", "--near=null")
    quantiles = json.loads((tmp_path / "all/train.curation.json").read_text())["scores"]
    assert list(quantiles) == ["0.01", "0.05", "0.10", "0.25", "0.50", "0.75", "0.90"]
    assert sorted(quantiles.values()) == list(quantiles.values())
    capsys.readouterr()
    least = f"--least_score={quantiles['0.50']}"
    run(f"--source=[{shards}]", f"--out={tmp_path / 'half'}", f"--scorer={clip}", least)
    assert 14 <= table(capsys.readouterr().out)["score"][0] <= 18


def test_the_shards_of_a_view_are_checked_where_they_are(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"--source=[{shards}]", f"--out={tmp_path / 'view'}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        start(check_shards.main, check_shards.Config, [f"--folder={tmp_path / 'view'}"])
    said = capsys.readouterr().err
    assert refused.value.code == 2
    assert said == f"error: {tmp_path / 'view'} is a view and has no shards: check {shards}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source=[scenes]"], "scenes are drawn and need no curation"),
        (["--source=[none]"], "none is not a local folder"),
        (["--source=[{shards}]", "--split=val"], "has no split 'val', it has test, train"),
        (["--source=[{shards}]", "--against=[{shards}]", "--against_split=val"], "no split 'val'"),
        (["--source=[{shards}]", "--near=1.5"], "at most 1, got 1.5"),
        (["--source=[{shards}]", "--script=LATN"], "begins with 'LATN'"),
        (["--source=[{shards}]", "--least_score=0.1"], "least_score needs a scorer, got 0.1"),
        (["--source=[{shards}]", "--scorer={shards}"], "neither an open_clip model nor an orderer"),
        (["--source=[{shards}]", "--least_side=900"], "these were removed: resolution 33"),
        (["--source=[{shards}]", "--out={shards}"], "holds shards: a view needs a folder of"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    arguments: list[str],
    sentence: str,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "view"
    with pytest.raises(SystemExit) as refused:
        run(f"--out={out}", *[each.format(shards=shards) for each in arguments])
    said = capsys.readouterr().err
    assert refused.value.code == 2
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
    assert not out.exists()


def test_a_clip_without_safe_weights_is_refused(clip: Path) -> None:
    (clip / "open_clip_model.safetensors").rename(clip / "open_clip_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no open_clip_model\.safetensors or"):
        open_scorer(clip, CPU)


def test_a_clip_that_is_damaged_is_refused(clip: Path) -> None:
    (clip / "open_clip_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no open_clip model can be read from"):
        open_scorer(clip, CPU)


def test_a_split_that_was_curated_is_not_written_over(shards: Path, tmp_path: Path) -> None:
    run(f"--source=[{shards}]", f"--out={tmp_path / 'view'}")
    before = np.load(tmp_path / "view/train.rows.npy")
    with pytest.raises(SystemExit):
        run(f"--source=[{shards}]", f"--out={tmp_path / 'view'}", "--least_words=5")
    assert (np.load(tmp_path / "view/train.rows.npy") == before).all()
