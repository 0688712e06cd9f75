"""Whatever happens, the last whole checkpoint is there and a damaged one is not loaded."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.engine.checkpoint import find_start, load_latest, save_checkpoint


def save(folder: Path, step: int, keep: int = 2, value: float | None = None) -> Path:
    tensors = {"model": {"w": torch.full((3,), step if value is None else value)}, "empty": {}}
    return save_checkpoint(folder, step, tensors, {"step": step}, keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Killed(BaseException):
    """No `except Exception` and no clean-up sees it, like a kill."""


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Die in place of the file operation with this number; what was not synced is half lost."""
    left = iter(range(moment, -1, -1))

    def patch(name: str) -> None:
        original = getattr(os, name)

        def counted(*args, **kwargs):
            if next(left, 0) > 0:
                return original(*args, **kwargs)
            if name == "fsync" and os.path.isfile(f"/proc/self/fd/{args[0]}"):
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            raise Killed

        monkeypatch.setattr(os, name, counted)

    for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
        patch(name)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    table = torch.randn(4, 3)
    group = {"a": table, "tied": table, "turned": table.T, "half": table.bfloat16()}
    other = {"scalar": torch.tensor(3), "bytes": torch.arange(5, dtype=torch.uint8)}
    state = {"seconds": 0.1, "names": ["x"], "nothing": None}
    path = save_checkpoint(tmp_path, 7, {"model": group, "rng": other}, state)
    found = load_latest(tmp_path)
    assert found is not None
    assert (found.step, found.state, found.path) == (7, state, path)
    assert path.name == "step-00000007"
    for name, tensors in {"model": group, "rng": other}.items():
        assert found.tensors[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert found.tensors[name][key].dtype == tensor.dtype
            assert torch.equal(found.tensors[name][key], tensor)


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert load_latest(tmp_path / "never") is None


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000003", "step-00000010"]


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        save(tmp_path, 1, keep=0)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("step", [2, 1])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(keep, step, tmp_path, monkeypatch):
    """Step 2 is a new one; step 1 is saved a second time."""
    moment, finished = 0, False
    while not finished:
        folder = tmp_path / str(moment)
        save(folder, 0)
        save(folder, 1, value=10.0, keep=keep)
        with monkeypatch.context() as patched:
            kill_at(patched, moment)
            try:
                save(folder, step, keep=keep, value=20.0)
                finished = True
            except Killed:
                pass
        found = load_latest(folder)
        assert found is not None and found.step in (1, step)
        assert found.tensors["model"]["w"].tolist() in ([10.0] * 3, [20.0] * 3)
        save(folder, 3, keep=keep)
        assert len(names(folder)) == keep
        moment += 1
    assert moment > 8


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        sync(handle)

    def renamed(source: Path, target: Path) -> None:
        order.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    save(tmp_path, 1)
    assert sorted(order[:4]) == FILES
    assert order[4:] == [".tmp-step-00000001", "renamed", tmp_path.name]


def files_of(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


FILES = ["empty.safetensors", "manifest.json", "model.safetensors", "state.json"]


def test_a_checkpoint_has_these_files(tmp_path):
    assert files_of(save(tmp_path, 1)) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named_and_the_one_before_is_taken(name, damage, tmp_path, caplog):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    content = (newest / name).read_bytes()
    for place in range(0, len(content), max(1, len(content) // 20)):
        if damage == "flip":
            flipped = bytes([content[place] ^ 1 << place % 8])
            (newest / name).write_bytes(content[:place] + flipped + content[place + 1 :])
        elif damage == "cut":
            (newest / name).write_bytes(content[:place])
        else:
            (newest / name).unlink(missing_ok=True)
        caplog.clear()
        found = load_latest(tmp_path)
        assert found is not None and found.step == 1
        assert str(newest) in caplog.text
        if damage != "flip" or name != "manifest.json":
            assert name in caplog.text


def test_a_file_too_many_is_refused(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "ema.safetensors").touch()
    found = load_latest(tmp_path)
    assert found is not None and found.step == 1


def test_a_checkpoint_under_another_step_is_refused(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000005")
    found = load_latest(tmp_path)
    assert found is not None and found.step == 1


def test_training_goes_on_past_a_damaged_checkpoint(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").unlink()
    save(tmp_path, 2)
    found = load_latest(tmp_path)
    assert found is not None and found.step == 2
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_when_all_are_damaged_nothing_starts_over_by_itself(tmp_path):
    (save(tmp_path, 1) / "state.json").unlink()
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        load_latest(tmp_path)


def test_a_fresh_start_does_not_bury_what_is_there(tmp_path):
    assert find_start(tmp_path, resume=False) is None
    assert find_start(tmp_path, resume=True) is None
    save(tmp_path, 1)
    found = find_start(tmp_path, resume=True)
    assert found is not None and found.step == 1
    with pytest.raises(ValueError, match="already holds step-00000001"):
        find_start(tmp_path, resume=False)


def test_tensors_may_need_gradients(tmp_path):
    save_checkpoint(tmp_path, 1, {"model": dict(nn.Linear(2, 2).named_parameters())}, {})
    assert load_latest(tmp_path) is not None
