"""Manifests made to do harm are refused in a line, and their names are no paths."""

import json
from pathlib import Path
from typing import Any

import pytest

from data import (
    Counts,
    Pair,
    find_defects,
    open_source,
    write_shards,
)
from tests.data.hostile.poison import DEEP, IMAGE, POISON

PAIRS = [Pair(key=key, image=IMAGE, captions=(f"a {key}",)) for key in ("ant", "bee", "cat")]


def entry(**fields: object) -> dict[str, Any]:
    """A shard that could be, other fields put in."""
    shard = {"samples": 3, "bytes": 20_480, "sha256": "0" * 64, **fields}
    return {"shards": {"train-000000.tar": shard}, "splits": {}}


def named(name: str) -> dict[str, Any]:
    return {"shards": {name: entry()["shards"]["train-000000.tar"]}, "splits": {}}


def split(**fields: object) -> dict[str, Any]:
    return {
        "shards": {},
        "splits": {"train": {"samples": 3, "captions": 3, "skipped": {}, **fields}},
    }


MANIFESTS: dict[str, object] = {
    "a path": named("../train-000000.tar"),
    "a path from the root": named("/etc/passwd-0.tar"),
    "a zero in a name": named("a\0-0.tar"),
    "a line end in a name": named("a\n-0.tar"),
    "a cursor that moves": named("\x1b[2J-0.tar"),
    "a name of half a surrogate": named("\ud800-0.tar"),
    "a name of 10,000 characters": named("a" * 10_000 + "-0.tar"),
    "a number of 10,000 digits": named("a-" + "0" * 10_000 + ".tar"),
    "an empty name": named(""),
    "a text": "shards",
    "a list": [],
    "null": None,
    "no splits": {"shards": {}},
    "shards in a list": {"shards": [], "splits": {}},
    "splits in a list": {"shards": {}, "splits": []},
    "a shard that is a list": {"shards": {"train-000000.tar": []}, "splits": {}},
    "a split that is null": {"shards": {}, "splits": {"train": None}},
    "samples as a text": entry(samples="3"),
    "samples as a list": entry(samples=[3]),
    "samples as a float": entry(samples=3.0),
    "samples as true": entry(samples=True),
    "samples below nothing": entry(samples=-3),
    "samples without end": entry(samples=10**400),
    "more samples than bytes": entry(samples=10**12),
    "more of both than a disk": entry(samples=10**15, bytes=10**18),
    "bytes as null": entry(bytes=None),
    "a hash as a number": entry(sha256=7),
    "a hash of half a surrogate": entry(sha256="\ud800" * 64),
    "a hash too short": entry(sha256="abc"),
    "a hash of an index as a list": entry(index_sha256=[]),
    "captions below nothing": split(captions=-1),
    "skipped as a list": split(skipped=[1]),
    "skipped counts as texts": split(skipped={"a": "1"}),
    "statistics as a list": split(statistics=[]),
    "statistics as texts": split(statistics={"words": "a"}),
    "a build as a list": split(build=[]),
    "read below nothing": split(read=-1),
    "complete as a text": split(complete="no"),
    "fields as numbers": split(fields=[1]),
}
RAW_MANIFESTS: dict[str, bytes] = {
    "nothing": b"",
    "lists in lists": DEEP,
    "cut": b'{"shards": {',
    "not UTF-8": b'{"shards": {"\xff": 1}}',
    "5,000 digits": b'{"shards": {}, "splits": {"a": {"samples": ' + b"9" * 5_000 + b"}}}",
    "a pickle": POISON,
    "not a number": json.dumps(entry()).replace("20480", "NaN").encode(),
    "a count past all floats": json.dumps(entry()).replace("20480", "1e999").encode(),
    **{name: json.dumps(manifest).encode() for name, manifest in MANIFESTS.items()},
}


@pytest.mark.parametrize("name", RAW_MANIFESTS)
def test_a_hostile_manifest_is_refused_in_a_line(folder: Path, name: str) -> None:
    (folder / "train-000000.tar").write_bytes(bytes(1024))
    (folder / "manifest.json").write_bytes(RAW_MANIFESTS[name])
    for use in (
        lambda: open_source([folder], "train", image_size=8),
        lambda: list(find_defects(folder, Counts())),
        lambda: write_shards(folder, "test", PAIRS),
    ):
        with pytest.raises(ValueError, match=r"manifest\.json is not a manifest of shards$"):
            use()


def test_shards_that_never_were_are_one_defect_however_many_samples_they_had(folder: Path) -> None:
    manifest = entry(samples=10**9, bytes=10**13)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (defect,) = find_defects(folder, Counts())
    assert defect.reason == "missing shard, 1000000000 samples"
    with pytest.raises(FileNotFoundError, match=r"is missing"):
        open_source([folder], "train", image_size=8)


def test_other_fields_of_a_manifest_are_left_alone(folder: Path) -> None:
    write_shards(folder, "train", PAIRS)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"folder": "/etc", "url": "pipe:touch canary", "py/object": "os.system"}
    manifest["shards"]["train-000000.tar"] |= {"path": "/etc/passwd", "url": "http://localhost/"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert list(find_defects(folder, Counts())) == []
    assert len(open_source([folder], "train", image_size=8)) == 3


@pytest.mark.parametrize(
    "source", ["pipe:touch canary", "file:///etc/passwd", "-", "a::b", "${WDS_X}", "{0..999999999}"]
)
def test_a_source_is_a_local_folder(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a local folder$"):
        open_source([source], "train", image_size=8)
