"""Saving in the background keeps every promise of saving at once."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes import train_ar
from recipes.engine import saving
from recipes.engine.checkpoint import load_latest
from recipes.engine.saving import Saver
from recipes.experiment import Experiment


def background(folder: Path) -> Saver:
    return Saver(folder=folder, in_background=True)


def test_what_is_saved_is_what_was_there_when_the_save_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    save = saving.save_checkpoint

    def waits(*arguments, **named):
        assert goes_on.wait(30)
        return save(*arguments, **named)

    monkeypatch.setattr(saving, "save_checkpoint", waits)
    saver, weights = background(tmp_path), torch.ones(3)
    saver.save(1, {"model": {"w": weights}}, {"at": 1})
    weights.zero_()
    assert load_latest(tmp_path) is None
    goes_on.set()
    saver.finish()
    found = load_latest(tmp_path)
    assert found is not None and found.tensors["model"]["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("error", [None, FloatingPointError("loss is nan")])
def test_a_training_that_ends_waits_for_its_last_save_and_tells_of_its_failure(
    error: Exception | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = threading.Event()

    def fails(*arguments, **named):
        time.sleep(0.2)
        ended.set()
        raise OSError("no room")

    monkeypatch.setattr(saving, "save_checkpoint", fails)
    with pytest.raises(OSError if error is None else FloatingPointError), background(tmp_path) as s:
        s.save(1, {}, {})
        if error:
            raise error
    assert ended.is_set()
    assert error is None or "a checkpoint could not be written: no room" in caplog.text


def test_saves_never_overlap_and_the_last_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, most = 0, 0
    save = saving.save_checkpoint

    def slow(*arguments, **named):
        nonlocal going, most
        going += 1
        most = max(most, going)
        time.sleep(0.05)
        path = save(*arguments, **named)
        going -= 1
        return path

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    saver = background(tmp_path)
    for step in range(1, 5):
        saver.save(step, {"model": {"w": torch.ones(1)}}, {})
    saver.finish()
    assert most == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.fixture
def after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saver:
    """A saver whose first save failed in the background."""

    def fails(*_, **__):
        raise OSError("out of luck")

    saver = background(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(saving, "save_checkpoint", fails)
        saver.save(1, {}, {})
    return saver


def test_a_save_that_failed_is_told_at_the_end(after_a_failure: Saver) -> None:
    with pytest.raises(OSError, match="out of luck"):
        after_a_failure.finish()


def test_a_save_that_failed_is_told_by_the_next_and_does_not_prevent_it(
    after_a_failure: Saver, caplog: pytest.LogCaptureFixture
) -> None:
    after_a_failure.save(2, {}, {})
    assert "a checkpoint could not be written: out of luck" in caplog.text
    after_a_failure.finish()
    found = load_latest(after_a_failure.folder)
    assert found is not None and found.step == 2


def test_a_training_that_saves_in_the_background_saves_the_same(
    trained: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/ar")
    train_ar.main(
        replace(
            trained,
            out=tmp_path / "run",
            checkpoint_every=1,
            checkpoint_keep=3,
            checkpoint_in_background=True,
        )
    )
    saved = tmp_path / "run/checkpoints/ar"
    assert sorted(path.name for path in saved.iterdir()) == [f"step-0000000{n}" for n in (2, 3, 4)]
    found, expected = (
        load_latest(out / "checkpoints/ar") for out in (saved.parents[1], trained.out)
    )
    assert found is not None and expected is not None and found.step == expected.step == 4
    for name, group in expected.tensors.items():
        for key, tensor in group.items():
            assert torch.equal(found.tensors[name][key], tensor)
