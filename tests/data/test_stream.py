"""What a stream of shards promises, and what `Batches` over the same shards promises more."""

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data import Batch, Batches, Damaged, Framing, Stream, encode_image, open_shards, shard_urls
from data.reader import Shown

FRAMING = Framing(size=8)
Served = Callable[[Path], str]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def write_shard(path: Path, numbers: range) -> None:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            for suffix, content in (
                ("png", encode_image(picture(number))),
                ("txt", b"%d" % number),
            ):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of so many shards, with 2, 3 or 4 samples in each, numbered from 0 on."""
    made = {}
    for shards in (1, 3, 5, 7, 8):
        folder = made[shards] = tmp_path_factory.mktemp(f"shards{shards}")
        start = 0
        for number in range(shards):
            write_shard(folder / f"train-{number:06d}.tar", range(start, start + 2 + number % 3))
            start += 2 + number % 3
    return made


def size_of(shards: int) -> int:
    return sum(2 + number % 3 for number in range(shards))


def stream_of(place: Path | str, shards: int, **options: object) -> Stream:
    urls = shard_urls([f"{place}/train-{{000000..{shards - 1:06d}}}.tar"])
    return Stream(urls, FRAMING, **{"batch_size": 4, "seed": 1, **options})  # type: ignore[arg-type]


def captions_of(samples: object) -> list[int]:
    assert isinstance(samples, list) and all(isinstance(each, Shown) for each in samples)
    return [int(each.caption) for each in samples]


@pytest.mark.parametrize("shards", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_and_their_readers_share_an_epoch_exactly_or_are_refused(
    folders: dict[int, Path], world: int, workers: int, shards: int
) -> None:
    ranks = [stream_of(folders[shards], shards, rank=rank, world=world) for rank in range(world)]
    readers = max(1, workers)
    if shards < world * readers:
        for stream in ranks:
            with pytest.raises(
                ValueError, match=rf"{shards} shards, fewer than its readers: {world} "
            ):
                next(stream.ahead(0, 1, workers))
        return
    seen, drawn = [], []
    for stream in ranks:
        for reader in range(readers):
            seen += captions_of(list(stream.reader(0).epoch(0, reader, readers)))
            drawn.append(list(islice(stream.reader(0).read(reader, readers), 9)))
    assert sorted(seen) == list(range(size_of(shards)))
    assert all(len(batch.images) == 4 // world for batches in drawn for batch in batches)  # type: ignore[union-attr]


@pytest.mark.parametrize("shards", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_reading_by_number_shares_an_epoch_exactly_in_one_order(
    folders: dict[int, Path], world: int, workers: int, shards: int
) -> None:
    source = open_shards(folders[shards], "train")
    size = size_of(shards)
    alone = Batches(source, FRAMING, batch_size=4, seed=1)
    shares = []
    for rank in range(world):
        batches = Batches(source, FRAMING, batch_size=4, seed=1, rank=rank, world=world)
        ahead = (
            batches.ahead(0, size, workers) if workers else enumerate(map(batches.at, range(size)))
        )
        shares.append([batch.indices for _, batch in ahead])
    drawn = [torch.cat(step) for step in zip(*shares, strict=True)]
    assert torch.cat(drawn).bincount().tolist() == [4] * size  # four epochs
    assert torch.cat(drawn)[:size].bincount().tolist() == [1] * size
    assert all(torch.equal(alone.at(step).indices, each) for step, each in enumerate(drawn))


def test_readers_in_other_processes_take_turns(folders: dict[int, Path], served: Served) -> None:
    stream = stream_of(served(folders[5]), 5)
    parts = [stream.reader(0).read(reader, 2) for reader in range(2)]
    for step, batch in stream.ahead(0, 12, workers=2):
        expected = next(parts[step % 2])
        assert isinstance(expected, Batch) and torch.equal(batch.images, expected.images)
        assert batch.captions == expected.captions and torch.equal(batch.indices, expected.indices)
    assert not stream.skipped


def test_images_and_captions_stay_together(folders: dict[int, Path]) -> None:
    stream = stream_of(folders[8], 8)
    numbers: dict[int, str] = {}
    for _, batch in stream.ahead(0, 20, workers=0):
        for image, caption, index in zip(batch.images, batch.captions, batch.indices, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), picture(int(caption)))
            assert numbers.setdefault(int(index), caption) == caption
    assert len(numbers) == size_of(8)


def order(stream: Stream, first: int, last: int) -> list[str]:
    return [caption for _, batch in stream.ahead(first, last, 0) for caption in batch.captions]


def test_the_order_is_drawn_anew_each_epoch_and_is_the_same_again(folders: dict[int, Path]) -> None:
    size = size_of(7)
    drawn = order(stream_of(folders[7], 7, batch_size=1), 0, 2 * size)
    assert sorted(drawn[:size]) == sorted(drawn[size:]) and drawn[:size] != drawn[size:]
    assert drawn == order(stream_of(folders[7], 7, batch_size=1), 0, 2 * size)
    assert drawn != order(stream_of(folders[7], 7, batch_size=1, seed=2), 0, 2 * size)


def test_a_resumed_run_begins_the_epoch_that_has_the_number_of_its_step(
    folders: dict[int, Path],
) -> None:
    stream = stream_of(folders[7], 7, batch_size=1)
    size = size_of(7)
    resumed = order(stream, 3, 3 + size)
    assert resumed == order(stream, 0, 4 * size)[3 * size :]
    assert [step for step, _ in stream.ahead(3, 6, 0)] == [3, 4, 5]
    assert not list(stream.ahead(3, 3, 1))


def test_reading_ahead_draws_nothing_from_the_generator_of_the_training(
    folders: dict[int, Path],
) -> None:
    before = torch.get_rng_state()
    assert len(list(stream_of(folders[3], 3).ahead(0, 3, 1))) == 3
    assert torch.equal(before, torch.get_rng_state())


def test_the_environment_splits_no_shards(
    folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = order(stream_of(folders[3], 3), 0, 5)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "WORKER": "1", "NUM_WORKERS": "2"}.items():
        monkeypatch.setenv(name, value)
    assert order(stream_of(folders[3], 3), 0, 5) == expected


def damaged(folder: Path, shards: int, kinds: dict[int, str]) -> Path:
    for number in range(shards):
        path = folder / f"train-{number:06d}.tar"
        write_shard(path, range(4 * number, 4 * number + 4))
        kind = kinds.get(number)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:3000])
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "html":
            path.write_text("<html>not here</html>")
        elif kind == "missing":
            path.unlink()
    return folder


@pytest.mark.parametrize("kind", ["cut", "empty", "html", "missing"])
def test_one_broken_shard_is_counted_and_passed_over(
    tmp_path: Path, served: Served, kind: str
) -> None:
    stream = stream_of(served(damaged(tmp_path, 4, {2: kind})), 4)
    drawn = {int(caption) for caption in order(stream, 0, 40)}
    assert drawn == set(range(16)) - set(range(9 if kind == "cut" else 8, 12))
    reason = "unreadable shard" if kind == "missing" else "broken shard"
    assert stream.skipped == Counter({reason: 1})


def test_too_many_broken_shards_end_the_run_and_the_last_is_named(
    tmp_path: Path, served: Served
) -> None:
    host = served(damaged(tmp_path, 4, {1: "cut", 2: "missing"}))
    with pytest.raises(ValueError, match=rf"too many shards .* 2 of 4; the last is '{host}/train"):
        order(stream_of(host, 4), 0, 40)
    assert order(stream_of(host, 4, max_skipped=0.5), 0, 40)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_nothing_ends_the_run(tmp_path: Path, served: Served, workers: int) -> None:
    host = served(damaged(tmp_path, 1, {0: "missing"}))
    with pytest.raises(ValueError, match="has no pair that can be read, skipped: 1 unreadable"):
        next(stream_of(host, 1).ahead(0, 1, workers))


def test_too_many_damaged_samples_end_the_run(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000000.tar", range(40))
    path = tmp_path / "train-000000.tar"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\x89PNG", b"\x89GNP", 12))
    with pytest.raises(ValueError, match="too many damaged samples, skipped: 11 not an image"):
        order(stream_of(tmp_path, 1), 0, 40)
    stream = stream_of(tmp_path, 1, max_skipped=0.3)
    order(stream, 0, 40)
    assert stream.skipped == {"not an image": 12}


def test_a_caption_that_does_not_fit_is_never_shown(folders: dict[int, Path]) -> None:
    shards = stream_of(folders[3], 3).shards
    stream = Stream(shards, FRAMING, 0.1, lambda caption: caption != "3", batch_size=2, seed=0)
    assert set(order(stream, 0, 30)) == set("01245678")
    assert stream.skipped == {"caption too long": 1}


def test_a_view_and_a_caption_depend_on_epoch_and_sample_alone(folders: dict[int, Path]) -> None:
    framing = Framing(size=8, crop_area=0.3, mirrored=0.5)
    shown: dict[tuple[int, int], torch.Tensor] = {}
    for world in (1, 2):
        for rank in range(world):
            shards = stream_of(folders[5], 5).shards
            stream = Stream(shards, framing, batch_size=2, seed=1, rank=rank, world=world)
            for epoch in (0, 1):
                for each in stream.reader(0).epoch(epoch, 0, 1):
                    assert not isinstance(each, Damaged)
                    image = torch.from_numpy(each.image)
                    assert torch.equal(image, shown.setdefault((epoch, each.index), image))
    assert len(shown) == 2 * size_of(5)
    assert not all(torch.equal(x, shown[1 - epoch, index]) for (epoch, index), x in shown.items())


def test_weights_are_refused(folders: dict[int, Path]) -> None:
    with pytest.raises(ValueError, match=r"not weighted, got \[1.0\]"):
        stream_of(folders[3], 3, weights=(1.0,))
