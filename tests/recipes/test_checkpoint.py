"""Whatever happens, the last whole checkpoint is there and a damaged one is not loaded."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes.engine import files
from recipes.engine.checkpoint import find_start, load_latest, save_checkpoint
from recipes.experiment import Experiment


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


@contextmanager
def one_fault(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have the file operation with this number fail, and no other; which it was."""
    left, failed = iter(range(number, -1, -1)), list[str]()

    def patch(name: str) -> None:
        original = getattr(os, name)

        def counted(*args, **kwargs):
            if next(left, 1) > 0:
                return original(*args, **kwargs)
            failed.append(name)
            raise OSError(code, os.strerror(code))

        patched.setattr(os, name, counted)

    with monkeypatch.context() as patched:
        for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
            patch(name)
        yield failed


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_fault_of_any_file_operation_leaves_only_whole_checkpoints(code, tmp_path, monkeypatch):
    number, refused = 0, 0
    while True:
        folder = tmp_path / str(number)
        save(folder, 0)
        save(folder, 1)
        error = None
        with one_fault(number, code, monkeypatch) as failed:
            try:
                save(folder, 2)
            except OSError as found:
                error, refused = found, refused + 1
        if not failed:
            break
        found = load_latest(folder)
        assert found is not None
        # Where the last sync fails, the new one has its name already.
        assert found.step == 2 if error is None else found.step in (1, 2)
        assert "step-00000001" in names(folder)
        assert all(name.startswith("step-") for name in names(folder))
        if error is not None and code == errno.ENOSPC:
            assert error.errno == errno.ENOSPC and error.strerror.startswith(
                f"no room for checkpoint {folder / 'step-00000002'}: it needs at least 24 bytes, "
            )
            assert error.strerror.endswith(f"the last checkpoint is {found.path.name}")
        number += 1
    assert number > 8 and refused >= 8


def test_a_file_that_grows_too_large_leaves_the_last_checkpoint(tmp_path):
    """The system's own limit, hit in the midst of a file."""
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"it needs at least 80000 bytes, .* is step-00000001"):
            save_checkpoint(tmp_path, 2, {"model": {"w": torch.ones(20_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path) is not None


def test_the_oldest_stays_until_the_new_one_reads_back(tmp_path, monkeypatch):
    save(tmp_path, 1)
    fsync = os.fsync

    def lossy(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "model.safetensors":
            os.pwrite(handle, b"?", 3)
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lossy)
        with pytest.raises(OSError, match=r"does not give back what was written: model\.safe"):
            save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000002"]


def test_what_cannot_be_removed_does_not_end_a_training(tmp_path, monkeypatch, caplog):
    save(tmp_path, 1)

    def refuse(path: Path) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert "step-00000001 is left over: [Errno 16] busy" in caplog.text


def test_what_a_killed_save_left_and_cannot_be_removed_stops_no_later_save(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / ".tmp-step-00000001").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda path: (tmp_path / "no").rmdir())
    save(tmp_path, 2)
    assert load_latest(tmp_path).step == 2
    assert ".tmp-step-00000001 is left over" in caplog.text


def test_a_damaged_checkpoint_takes_no_place_of_a_good_one(tmp_path):
    save(tmp_path, 100)
    (save(tmp_path, 137) / "state.json").write_text("{}")
    save(tmp_path, 200, keep=2)
    assert names(tmp_path) == ["step-00000100", "step-00000137", "step-00000200"]
    save(tmp_path, 300, keep=2)
    assert names(tmp_path) == ["step-00000200", "step-00000300"]


@pytest.mark.parametrize(
    "manifest", [b"[" * 200_000, b'{"sha256": [[1, 2]]}', b'{"sha256": 3}', b"[]", b"\xff"]
)
def test_a_manifest_that_is_none_is_named_and_the_one_before_is_taken(manifest, tmp_path, caplog):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "manifest.json").write_bytes(manifest)
    assert load_latest(tmp_path).step == 1
    assert "missing or changed: manifest.json" in caplog.text


def test_a_manifest_that_cannot_be_read_is_as_good_as_none(tmp_path, monkeypatch):
    save(tmp_path, 1)
    bad, read = save(tmp_path, 2) / "manifest.json", Path.read_bytes

    def fails(path: Path) -> bytes:
        if path == bad:
            raise OSError(errno.EIO, "no")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    assert load_latest(tmp_path).step == 1


def test_the_names_of_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_path", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    files.make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as full:
        files.write_synced(Path("/dev/full"), b"x")
    assert full.value.filename == "/dev/full"


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


@pytest.fixture
def real(trained: Experiment, tmp_path: Path) -> Path:
    """What stage 2 saved, twice."""
    found = load_latest(trained.out / "checkpoints/ar")
    assert found is not None
    for step in (1, 2):
        save_checkpoint(tmp_path / "ar", step, found.tensors, found.state)
    return tmp_path / "ar"


@pytest.mark.parametrize("times", [10, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_training_s_checkpoint_is_refused_by_file_whatever_is_damaged(
    times, damage, real, caplog
):
    draw = random.Random(0)
    newest = real / "step-00000002"
    for _ in range(times):
        file = draw.choice(sorted(newest.iterdir()))
        content = file.read_bytes()
        place = draw.randrange(len(content))
        flipped = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)])
        file.write_bytes(flipped + content[place + 1 :] if damage == "flip" else content[:place])
        caplog.clear()
        found = load_latest(real)
        assert found is not None and found.step == 1
        assert f"{newest} is refused" in caplog.text
        assert file.name in caplog.text or file.name == "manifest.json"
        file.write_bytes(content)
    found = load_latest(real)
    assert found is not None and found.step == 2


def test_each_part_of_a_training_s_checkpoint_is_missed(real, tmp_path, caplog):
    newest = real / "step-00000002"
    files = sorted(newest.iterdir())
    assert sorted(file.stem for file in files) == [
        "ar", "ar-average", "ar-optimizer-0", "ar-optimizer-1", "manifest", "state",
    ]  # fmt: skip
    for file in files:
        shutil.move(file, tmp_path)
        caplog.clear()
        found = load_latest(real)
        assert found is not None and found.step == 1 and file.name in caplog.text
        shutil.move(tmp_path / file.name, newest)


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


def forge(path: Path, name: str, content: bytes) -> None:
    """Put a file into a checkpoint, and its hash into the manifest."""
    (path / name).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model.safetensors", b"PK\x03\x04 a zip, as torch.save writes", "holds no safetensors"),
        ("model.safetensors", b"\xff" * 64, "holds no safetensors"),
        ("state.json", b"[1]", "holds no JSON object"),
        ("state.json", b"{", "holds no JSON object"),
    ],
)
def test_right_hashes_of_wrong_files_are_no_way_in(name, content, sentence, tmp_path):
    forge(save(tmp_path, 1), name, content)
    with pytest.raises(ValueError, match=f"{name} {sentence}"):
        load_latest(tmp_path)


def test_a_pickle_beside_is_never_opened(tmp_path):
    canary = tmp_path / "canary"
    pickled = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    for name in ("custom_checkpoint_0.pkl", "model.pt"):
        forge(save(tmp_path / name, 1), name, pickled)
        found = load_latest(tmp_path / name)
        assert found is not None and found.tensors.keys() == {"model", "empty"}
    assert not canary.exists()
