"""Bad input ends in one sentence that names the thing and the value, and nothing is lost."""

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image

from recipes import (
    build_shards,
    evaluate,
    generate,
    train_ar,
    train_joint,
    train_orderer,
    write_tokens,
)
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment

SMOKE = "--config=recipes/configs/smoke.yaml"


@pytest.fixture(autouse=True)
def at_the_root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Any:
    """Starts a recipe and returns the sentence with which it refuses."""

    def refused(recipe: ModuleType, *arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            start(recipe.main, getattr(recipe, "Config", Experiment), arguments)
        said = capsys.readouterr().err
        assert stopped.value.code == 2
        *bar, sentence, end = said.split("\n")
        assert sentence.startswith("error: ") and not end
        assert all("step/s" in line for line in bar)  # of a training that had begun
        return sentence.removeprefix("error: ")

    return refused


def image(cut: bool = False) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 24), 50).convert("RGB").save(file, format="PNG")
    return file.getvalue()[: 200 if cut else None]


def shards(folder: Path, samples: dict[str, dict[str, bytes]], split: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
        for key, files in samples.items():
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


def samples(good: int, bad: int = 0, caption: str = "a picture") -> dict[str, dict[str, bytes]]:
    return {
        str(number): {"png": image(cut=number >= good), "txt": caption.encode()}
        for number in range(good + bad)
    }


def on(folder: Path, out: Path) -> tuple[str, ...]:
    return (SMOKE, f"--data.source=[{folder}]", "--data.train_count=null", f"--out={out}")


def test_the_program_itself_ends_with_exit_code_two(program: Any, tmp_path: Path) -> None:
    done = program("recipes.train_orderer", *on(tmp_path / "nowhere", tmp_path / "run"))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path}/nowhere is not a local folder\n"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_refused(refusal: Any, tmp_path: Path) -> None:
    said = refusal(train_orderer, *on(tmp_path, tmp_path / "run"))
    assert said == f"{tmp_path} has no shards named SPLIT-000000.tar"
    said = refusal(build_shards, f"--source={tmp_path}", f"--out={tmp_path / 'run'}")
    assert said == f"{tmp_path} has no images and no captions"


def test_a_split_that_is_not_there_is_refused(refusal: Any, tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards", samples(2), split="dev")
    said = refusal(train_orderer, *on(folder, tmp_path / "run"))
    assert said == f"{folder} has no split 'train', it has dev"


def test_captions_without_images_are_refused(refusal: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a picture")
    said = refusal(build_shards, f"--source={tmp_path}", f"--out={tmp_path / 'out'}")
    assert said == "split 'train' has no pair to write, skipped: 1 no image"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    folder = shards(tmp_path / "shards", {"a": {"txt": b"a picture"}})
    said = refusal(train_orderer, *on(folder, tmp_path / "run"))
    assert said == "shards/train has no pair that can be read, skipped: 1 no image"


def test_a_truncated_image_is_skipped_counted_and_reported(
    tiny: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shards(tmp_path / "shards", samples(good=16, bad=1))
    data = DataSettings(source=(str(folder),), train_count=None)
    train_orderer.main(replace(tiny, data=data, out=tmp_path / "run"))
    said, ended = capsys.readouterr().out.splitlines()
    assert said == "shards/train: skipped: 1 truncated image"
    assert ended.startswith("orderer finished after 4 of 4 steps")
    assert (tmp_path / "run/orderer/model.safetensors").is_file()


def test_too_many_truncated_images_are_refused(refusal: Any, tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards", samples(good=16, bad=2))
    said = refusal(train_orderer, *on(folder, tmp_path / "run"))
    assert re.fullmatch(
        r"shards/train has too many damaged samples, skipped: 2 truncated image among \d+ read; "
        r"the last is '\d+'",
        said,
    )


@pytest.mark.parametrize("recipe", [train_orderer, train_joint])
def test_a_caption_longer_than_the_context_is_refused_before_the_first_step(
    recipe: ModuleType, refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    """Whichever caption a step would have drawn."""
    out = tmp_path / "run"
    shutil.copytree(trained.out, out, ignore=shutil.ignore_patterns("checkpoints", "logs"))
    pairs = samples(good=16)
    pairs["9"]["txt"] = b"a picture\n" + b"very " * 40 + b"long"
    said = refusal(recipe, *on(shards(tmp_path / "shards", pairs), out))
    assert said == (
        f"pair 9 (from 0): the caption '{'very ' * 16}' has 41 word pieces, this orderer reads at "
        "most 38"
    )
    assert not (out / "logs").exists()


def test_a_caption_to_draw_longer_than_the_context_is_refused(
    refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    captions = f"--captions=['{'very ' * 40}long']"
    picture = tmp_path / "picture.png"
    said = refusal(generate, f"--models={trained.out}", captions, f"--out={picture}")
    assert said.endswith("has 41 word pieces, this orderer reads at most 38")
    assert not picture.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--train_orderer.stesp=3"],
            "unrecognized arguments: --train_orderer.stesp=3; did you mean --train_orderer.steps?",
        ),
        (
            ["--orderer={toknes: 3}"],
            "OrdererConfig has no setting named toknes, got 3 for it; did you mean tokens?",
        ),
        (["--train_orderer.steps=many"], "train_orderer.steps must be int, got many"),
        (["--train_orderer.steps=0"], "steps must be at least 1, got 0"),
        (["--train_orderer.objectives.text_ramp=0"], "text_ramp must be at least 1, got 0"),
        (["--train_orderer.optim.clip=-1"], "clip must be at least 0, got -1.0"),
        (["--orderer={tokens: 2.5}"], "tokens must be a whole number, got 2.5"),
        (["--checkpoint_every=0"], "checkpoint_every must be at least 1, got 0"),
        (["--data.train_count=0"], "the number of scenes must be at least 1, got 0"),
        (["--config=nowhere.yaml"], "there is no config file nowhere.yaml"),
    ],
)
def test_a_wrong_setting_is_refused(
    arguments: list[str], sentence: str, refusal: Any, tmp_path: Path
) -> None:
    assert refusal(train_orderer, SMOKE, *arguments, f"--out={tmp_path / 'run'}") == sentence
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_in_a_file_is_refused(refusal: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"train_ar": {"stesp": 3}}))
    said = refusal(train_ar, f"--config={path}")
    assert said == f"in config file {path}, unknown key train_ar.stesp; did you mean steps?"


def test_a_model_of_another_kind_is_refused(
    refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(trained.out / "ar", tmp_path / "orderer")
    expected = f"{tmp_path}/orderer holds a model of the kind 'sightline_ar', not "
    for recipe in (write_tokens, train_ar, train_joint, evaluate):
        said = refusal(recipe, SMOKE, f"--out={tmp_path}")
        assert said == f"{expected}'sightline_orderer'"
    said = refusal(generate, f"--models={tmp_path}", "--captions=['a red ring']")
    assert said == f"{expected}'sightline_orderer'"


@pytest.mark.parametrize("recipe", [write_tokens, train_ar, train_joint, evaluate])
def test_a_stage_whose_input_is_not_there_is_refused(
    recipe: ModuleType, refusal: Any, tmp_path: Path
) -> None:
    assert refusal(recipe, SMOKE, f"--out={tmp_path}") == f"{tmp_path}/orderer is not a folder"


def test_weights_that_do_not_fit_their_settings_are_refused(
    refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(trained.out / "orderer", tmp_path / "orderer")
    path = tmp_path / "orderer/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "token_dim": 8}))
    said = refusal(write_tokens, SMOKE, f"--out={tmp_path}")
    assert said.startswith(f"the weights in {tmp_path}/orderer do not fit the settings beside")


@pytest.mark.parametrize("name", ["orderer", "ar", "joint"])
def test_a_fresh_start_does_not_bury_checkpoints(
    name: str, refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    recipe = {"orderer": train_orderer, "ar": train_ar, "joint": train_joint}[name]
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(plain_settings(trained)))
    before = sorted(path.name for path in (trained.out / "checkpoints" / name).iterdir())
    assert refusal(recipe, f"--config={config}") == (
        f"{trained.out}/checkpoints/{name} already holds step-00000004: "
        "give --resume to go on, or another out"
    )
    assert sorted(path.name for path in (trained.out / "checkpoints" / name).iterdir()) == before


def test_a_judge_of_scenes_for_other_pairs_is_refused(
    refusal: Any, trained: Experiment, tmp_path: Path
) -> None:
    folder = shards(tmp_path / "shards", samples(good=4), split="test")
    only_test = ("--data.test=test", "--data.unseen=null", "--data.test_count=4")
    arguments = (SMOKE, f"--data.source=[{folder}]", *only_test)
    said = refusal(evaluate, *arguments, f"--out={trained.out}")
    assert said == (
        f"evaluation.judge must be classes, words or retrieval for data from {folder}, got scenes"
    )
