"""A checkpoint in parts keeps every promise of a whole one, and is one to whoever loads it."""

import errno
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from recipes import consolidate
from recipes.engine.checkpoint import load_latest, save_in_parts
from recipes.engine.execution import Execution
from recipes.experiment import Experiment

PARTS = [f"shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)]


def whole_tensors(value: float = 0.0) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    shared = {
        "even": torch.randn(4, 3) + value,
        "odd": torch.randn(5, 2, 2),
        "half": torch.randn(3).bfloat16(),
        "one row": torch.randn(1, 2),
    }
    kept = {"number": torch.tensor(3), "bytes": torch.arange(5, dtype=torch.uint8)}
    return {"model": shared, "optimizer": kept, "empty": {}}


def shared_out(value: float = 0.0) -> dict[str, dict[str, Tensor]]:
    """The same, with the model's over the processes."""
    tensors = whole_tensors(value)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = {n: distribute_tensor(x, mesh, [Shard(0)]) for n, x in tensors["model"].items()}
    return {**tensors, "model": model}


def save(folder: Path, step: int, value: float = 0.0) -> Path:
    return save_in_parts(folder, step, shared_out(value), {"seconds": 0.5}, keep=2)


@pytest.fixture
def saved(forked: Any, tmp_path: Path) -> Path:
    """Two checkpoints by two processes."""

    def work() -> None:
        for step in (1, 2):
            save(tmp_path / "saved", step)

    assert forked.run(work, 2) == [0, 0]
    return tmp_path / "saved"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(found: Any, expected: dict[str, dict[str, Tensor]]) -> bool:
    return found.tensors.keys() == expected.keys() and all(
        found.tensors[group].keys() == tensors.keys()
        and all(
            torch.equal(found.tensors[group][name], tensor)
            and found.tensors[group][name].dtype == tensor.dtype
            for name, tensor in tensors.items()
        )
        for group, tensors in expected.items()
    )


@pytest.mark.parametrize("world", [2, 3, 4])
def test_what_any_number_of_processes_wrote_is_read_whole_and_bit_for_bit(
    world: int, forked: Any, tmp_path: Path
) -> None:
    assert forked.run(lambda: save(tmp_path / "saved", 7), world) == [0] * world
    found = load_latest(tmp_path / "saved")
    assert found is not None
    assert (found.step, found.state) == (7, {"seconds": 0.5})
    assert equal(found, whole_tensors())
    files = [name for name in names(found.path) if name.startswith("shard-")]
    assert len(files) == world


def test_no_process_holds_or_writes_what_is_another_s(saved: Path) -> None:
    read = [load_file(saved / "step-00000002" / name) for name in PARTS]
    for key in ("even", "odd"):
        rows = [len(part[f"model/{key}"]) for part in read]
        assert min(rows) > 0 and sum(rows) == len(whole_tensors()["model"][key])
    assert sum("optimizer/bytes" in part for part in read) == 1


def test_the_newest_are_kept(forked: Any, tmp_path: Path) -> None:
    def work() -> None:
        for step in (1, 2, 2, 5):
            save(tmp_path / "saved", step, step)

    assert forked.run(work, 2) == [0, 0]
    assert names(tmp_path / "saved") == ["step-00000002", "step-00000005"]
    found = load_latest(tmp_path / "saved")
    assert found is not None and equal(found, whole_tensors(5))


@pytest.mark.parametrize("name", [*PARTS, "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named_and_the_one_before_is_taken(
    name: str, damage: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = saved / "step-00000002" / name
    content = file.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 20)):
        if damage == "flip":
            flipped = bytes([content[place] ^ 1 << place % 8])
            file.write_bytes(content[:place] + flipped + content[place + 1 :])
        elif damage == "cut":
            file.write_bytes(content[:place])
        else:
            file.unlink(missing_ok=True)
        caplog.clear()
        found = load_latest(saved)
        assert found is not None and found.step == 1
        assert str(file.parent) in caplog.text
        if damage != "flip" or name != "manifest.json":
            assert name in caplog.text


def on(rank: int, work: Callable[[], object]) -> None:
    if dist.get_rank() == rank:
        work()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_of_one_process_is_told_by_all_and_leaves_the_last_checkpoint(
    rank: int, forked: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "saved"

    def work() -> None:
        save(folder, 1)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        on(rank, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1])))
        with pytest.raises(OSError) as refused:
            save(folder, 2)
        assert refused.value.errno == errno.EFBIG
        if dist.get_rank() == 0:
            assert str(refused.value).endswith("the last checkpoint is step-00000001")
        dist.barrier()

    assert forked.run(work, 2) == [0, 0]
    assert names(folder) == ["step-00000001"]
    found = load_latest(folder)
    assert found is not None and equal(found, whole_tensors())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_a_disk_that_gives_back_something_else_is_noticed(
    place: float, rank: int, forked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync = tmp_path / "saved", os.fsync

    def lossy(handle: int) -> None:
        file = Path(f"/proc/self/fd/{handle}").readlink()
        if file.name == PARTS[rank]:
            content = file.read_bytes()
            at = int(len(content) * place)
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        fsync(handle)

    def work() -> None:
        save(folder, 1)
        monkeypatch.setattr(os, "fsync", lossy)
        save(folder, 2)

    sentence = f"does not give back what was written: {PARTS[rank]}"
    assert ended(forked, work, tmp_path) == [("OSError", sentence)]
    assert names(folder) == ["step-00000001"]


def ended(forked: Any, work: Callable[[], None], folder: Path) -> list[tuple[str, str]]:
    """What the first process of two ended with; the other may see it gone."""

    def noted() -> None:
        try:
            work()
        except OSError as error:
            if dist.get_rank() == 0:
                (folder / "end").write_text(str(error))
            os._exit(1)

    codes = forked.finish(forked.start(noted, 2, stall_seconds=10))
    assert codes[0] == 1 and codes[1] != 0
    return [("OSError", (folder / "end").read_text().partition("saved ")[2])]


def test_processes_that_see_other_folders_are_noticed(forked: Any, tmp_path: Path) -> None:
    def work() -> None:
        save(tmp_path / f"of-{dist.get_rank()}" / "saved", 1)

    for rank in (0, 1):
        (tmp_path / f"of-{rank}/saved/.tmp-step-00000001").mkdir(parents=True)
    assert ended(forked, work, tmp_path)[0][1].endswith(f"written: {PARTS[1]}")
    assert names(tmp_path / "of-0/saved") == []


def test_a_slow_disk_of_one_process_is_no_stall(
    forked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def slow(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == PARTS[1]:
            time.sleep(2.5)
        fsync(handle)

    def work() -> None:
        monkeypatch.setattr(os, "fsync", slow)
        save(tmp_path / "saved", 1)

    assert forked.finish(forked.start(work, 2, stall_seconds=1)) == [0, 0]
    assert load_latest(tmp_path / "saved") is not None


def test_torchs_own_reader_reads_the_same(saved: Path) -> None:
    reader = HuggingFaceStorageReader(str(saved / "step-00000002"))
    for name, tensor in whole_tensors()["model"].items():
        read = {f"model/{name}": torch.empty_like(tensor)}
        load(read, storage_reader=reader, no_dist=True)
        assert torch.equal(read[f"model/{name}"], tensor)


def test_tied_and_turned_tensors_are_kept(forked: Any, tmp_path: Path) -> None:
    def work() -> None:
        tensors = shared_out()
        model, table = tensors["model"], torch.arange(12.0).view(3, 4)
        model |= {"tied": model["even"], "turned": table.T, "same": table}
        save_in_parts(tmp_path / "saved", 1, tensors, {})

    assert forked.run(work, 2) == [0, 0]
    found = load_latest(tmp_path / "saved")
    assert found is not None
    model = found.tensors["model"]
    assert torch.equal(model["tied"], model["even"]) and torch.equal(
        model["turned"].T, model["same"]
    )


def test_every_part_is_whole_on_the_disk_before_the_manifest(
    forked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync = tmp_path / "saved", os.fsync

    def noted(handle: int) -> None:
        file = Path(f"/proc/self/fd/{handle}").readlink()
        with (tmp_path / "synced").open("a") as notes:
            print(file.name, os.fstat(handle).st_size, file=notes)
        fsync(handle)

    def work() -> None:
        monkeypatch.setattr(os, "fsync", noted)
        save(folder, 1)

    assert forked.run(work, 2) == [0, 0]
    synced = (tmp_path / "synced").read_text().splitlines()
    files = {file.name: file.stat().st_size for file in (folder / "step-00000001").iterdir()}
    last = [synced.index(f"{name} {files[name]}") for name in (*PARTS, "manifest.json")]
    assert max(last[:2]) < last[2]


OPERATIONS = ("mkdir", "fsync", "rename", "unlink", "rmdir")


def dies_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End this process in place of the file operation with this number."""
    left = iter(range(moment, -1, -1))

    def patch(name: str) -> None:
        original = getattr(os, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            if next(left, 0) > 0:
                return original(*arguments, **named)
            os._exit(9)

        monkeypatch.setattr(os, name, counted)

    for name in OPERATIONS:
        patch(name)


@pytest.mark.parametrize(
    ("rank", "moment"),
    [(0, 3), (0, 8), (1, 0), *(pytest.param(0, n, marks=pytest.mark.long) for n in range(14))],
)
def test_a_kill_of_one_process_leaves_a_whole_checkpoint(
    rank: int, moment: int, forked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "saved"

    def work() -> None:
        save(folder, 1)
        save(folder, 2)
        on(rank, lambda: dies_at(moment, monkeypatch))
        save(folder, 3, 1.0)

    codes = forked.finish(forked.start(work, 2, stall_seconds=5))
    assert codes[rank] in (0, 9) and None not in codes
    found = load_latest(folder)
    assert found is not None and found.step in (2, 3)
    assert equal(found, whole_tensors(1.0 if found.step == 3 else 0.0))
    assert forked.run(lambda: save(folder, 4), 2) == [0, 0]
    assert len(names(folder)) == 2


def forge(folder: Path, change: Callable[[Path], None]) -> None:
    """Change a checkpoint, and write right hashes."""
    change(folder)
    files = [file for file in folder.iterdir() if file.name != "manifest.json"]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    said = {"step": 2, "sha256": digests}
    (folder / "manifest.json").write_text(json.dumps(said, indent=1, sort_keys=True))


def without_a_part(folder: Path) -> None:
    (folder / PARTS[1]).unlink()


def without_places(folder: Path) -> None:
    tensors = load_file(folder / PARTS[1])
    save_file(tensors, folder / PARTS[1])


def with_places(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Say otherwise where the second process' parts lie."""

    def changed(folder: Path) -> None:
        file = folder / PARTS[1]
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            places = json.loads(opened.metadata()["DCP_SHARDING_INFO"])
        save_file(tensors, file, {"DCP_SHARDING_INFO": json.dumps(change(places))})

    return changed


def moved(*offsets: Any) -> Callable[[Path], None]:
    return with_places(lambda places: {**places, "model/even": {"saved_offsets": list(offsets)}})


def of_another_type(folder: Path) -> None:
    tensors = load_file(folder / PARTS[1])
    places = {name: {"saved_offsets": [2, 0, 0][: x.ndim]} for name, x in tensors.items()}
    tensors["model/even"] = tensors["model/even"].to(torch.uint8)
    save_file(tensors, folder / PARTS[1], {"DCP_SHARDING_INFO": json.dumps(places)})


def of_another_kind(folder: Path) -> None:
    (folder / PARTS[1]).write_bytes(b"PK\x03\x04 a zip, as torch.save writes")


def of_other_groups(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(
        json.dumps({**state, "parts": {"model": {"more": state["parts"]["model"]["odd"]}}})
    )


def of_no_groups(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "parts": 3}))


@pytest.mark.parametrize(
    "change",
    [
        without_a_part,
        without_places,
        with_places(lambda places: [1]),
        with_places(lambda places: {}),
        moved(0, 0),
        moved(1, 0),
        moved(-1, 0),
        moved(5, 0),
        moved(2, 1),
        moved(2),
        moved(2, 0, 0),
        moved(2.0, "0"),
        moved(None, 0),
        of_another_type,
        of_another_kind,
        of_other_groups,
        of_no_groups,
    ],
)
def test_right_hashes_of_wrong_parts_are_no_way_in(
    change: Callable[[Path], None], saved: Path
) -> None:
    forge(saved / "step-00000002", change)
    with pytest.raises(ValueError, match="step-00000002 holds no parts of whole tensors"):
        load_latest(saved)


def test_a_pipe_in_a_checkpoint_is_refused(saved: Path) -> None:
    os.mkfifo(saved / "step-00000002" / "shard-00003-model-00001-of-00001.safetensors")
    found = load_latest(saved)
    assert found is not None and found.step == 1


def test_a_pickle_beside_is_never_opened(saved: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickled = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    forge(saved / "step-00000002", lambda folder: (folder / ".metadata").write_bytes(pickled))
    found = load_latest(saved)
    assert found is not None and equal(found, whole_tensors())
    assert not canary.exists()


def test_a_consolidated_checkpoint_has_a_file_for_each_group(saved: Path, tmp_path: Path) -> None:
    consolidate.main(consolidate.Consolidation(folder=saved, out=tmp_path / "one"))
    found = load_latest(tmp_path / "one")
    assert found is not None and equal(found, whole_tensors())
    assert (found.step, found.state) == (2, {"seconds": 0.5})
    assert names(found.path) == [
        "empty.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors",
        "state.json",
    ]  # fmt: skip


def test_nothing_to_consolidate_and_a_folder_in_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        consolidate.main(consolidate.Consolidation(folder=tmp_path / "none", out=tmp_path / "one"))
    with pytest.raises(ValueError, match="is there already"):
        consolidate.main(consolidate.Consolidation(folder=tmp_path / "none", out=tmp_path))


def test_a_model_that_is_shared_out_is_not_saved_in_the_background() -> None:
    sharded = Execution(parallel="sharded")
    with pytest.raises(
        ValueError, match=r"checkpoint_in_background .* execution\.parallel=sharded"
    ):
        Experiment(execution=sharded, checkpoint_in_background=True)
