"""Generation: captions to one picture."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from recipes import generate
from recipes.engine.cli import run as start
from recipes.experiment import Experiment

CAPTIONS = ("a red ring", "a blue moon at the left")


def drawn(out: Path, experiment: Experiment, *options: str) -> bytes:
    captions = "[" + ", ".join(f"'{caption}'" for caption in CAPTIONS) + "]"
    arguments = [f"--models={experiment.out}", f"--captions={captions}", f"--out={out}"]
    start(generate.main, generate.Config, [*arguments, "--sampling.steps=2", *options])
    return out.read_bytes()


def test_captions_become_one_picture(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(tmp_path / "new/folder/images.png", trained)
    assert capsys.readouterr().out == f"{tmp_path}/new/folder/images.png\n"
    with Image.open(tmp_path / "new/folder/images.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 32  # two beside each other


def test_a_picture_is_a_function_of_its_seed(trained: Experiment, tmp_path: Path) -> None:
    first = drawn(tmp_path / "a.png", trained)
    assert drawn(tmp_path / "b.png", trained) == first
    assert drawn(tmp_path / "c.png", trained, "--seed=1") != first


def test_a_prefix_and_stage_three_draw_too(trained: Experiment, tmp_path: Path) -> None:
    assert drawn(tmp_path / "a.png", trained, "--prefix=1", "--sampling.guidance_scale=1")
    assert drawn(tmp_path / "b.png", trained, f"--models={trained.out / 'joint'}")


def test_a_search_tells_what_it_found_and_what_that_cost(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*options: str) -> list[tuple[float, int]]:
        drawn(tmp_path / "a.png", trained, *options)
        *lines, path = capsys.readouterr().out.splitlines()
        assert path == str(tmp_path / "a.png")
        assert [line.partition(": ")[2] for line in lines] == list(CAPTIONS)
        words = [line.split() for line in lines]
        return [(float(score), int(tokens)) for score, _, tokens, *_ in words]

    best = told("--search.candidates=6")
    fewer = told("--search.candidates=2")
    assert [tokens for _, tokens in best] == [6 * 16] * 2
    assert [tokens for _, tokens in fewer] == [2 * 16] * 2
    assert all(more >= less for (more, _), (less, _) in zip(best, fewer, strict=True))
    beam = told("--search.candidates=6", "--search.method=beam", "--search.at=[2]", "--prefix=8")
    assert [tokens for _, tokens in beam] == [6 * 2 + 6] * 2
    enough = told("--search.candidates=6", "--search.method=early_exit", "--search.enough=-1")
    assert [tokens for _, tokens in enough] == [16] * 2


def test_a_search_among_one_is_none(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = drawn(tmp_path / "a.png", trained)
    capsys.readouterr()
    assert drawn(tmp_path / "b.png", trained, "--search.method=beam") == plain
    assert capsys.readouterr().out == f"{tmp_path}/b.png\n"
    assert drawn(tmp_path / "c.png", trained, "--search.candidates=8") != plain


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--captions=[]", "captions must hold at least one caption, got none"),
        ("--prefix=17", "prefix must lie in 1..16, got 17"),
        ("--prefix=0", "prefix must lie in 1..16, got 0"),
        ("--sampling.steps=0", "steps must be at least 1, a whole number, got 0"),
        ("--seed=-1", "seed must be at least 0 and below 2^62, got -1"),
        ("--search.candidates=0", "candidates must be at least 1, got 0"),
        ("--search.enough=0.5", "enough is for early_exit, got 0.5 for best_of"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    option: str,
    sentence: str,
    trained: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused:
        drawn(tmp_path / "a.png", trained, option)
    assert refused.value.code == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert not (tmp_path / "a.png").exists()


def test_models_of_two_trainings_are_refused(
    trained: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.out / "orderer", tmp_path / "orderer")
    shutil.copytree(trained.out / "joint/ar", tmp_path / "ar")
    with pytest.raises(SystemExit) as refused:
        drawn(tmp_path / "a.png", trained, f"--models={tmp_path}")
    assert refused.value.code == 2
    assert "was trained on tokens of orderer" in capsys.readouterr().err
