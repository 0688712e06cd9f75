"""Files of every kind, damaged by chance: what is read is a pair, or is refused in one line.

python -m pytest -m long tests/data/test_mutations.py     10,000 of them, some minutes
"""

import io
import json
import random
import resource
import struct
import tarfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data import (
    Counts,
    Damaged,
    DamagedCaption,
    DamagedImage,
    Pair,
    TokenStore,
    decode_image,
    decoded,
    encode_image,
    find_defects,
    open_shards,
    pairs_from_coco,
    pairs_from_table,
    parse_captions,
    write_shards,
    write_tokens,
)
from data.bare_image import bare_jpeg
from data.images import _decode, _decode_plain_jpeg
from data.tar_stream import pairs_in_stream
from data.tars import pairs_in_tar

SECONDS = 5.0
"""That one file may take."""
SIZES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63)
VALUES = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1.5,
    "",
    "a",
    "../a",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    {"": 0},
)
FEW, MANY = range(50), range(50, 1_050)
REFUSALS = (ValueError, FileNotFoundError, DamagedImage, DamagedCaption)


def mutated(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four places, each in one of nine ways."""
    damaged = bytearray(raw)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        damage = chance.choice(WAYS)
        damaged = bytearray(damage(damaged, other, chance)) or bytearray(1)
    return bytes(damaged)


def flipped(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return raw


def flipped_early(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    """Where headers are."""
    raw[chance.randrange(min(len(raw), 600))] = chance.randrange(256)
    return raw


def cut(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw))]


def zeroed(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    start, size = _piece(raw, chance)
    raw[start : start + size] = bytes(size)
    return raw


def copied(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    start, size = _piece(raw, chance)
    to = chance.randrange(len(raw))
    raw[to : to + size] = raw[start : start + size]
    return raw


def inserted(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(raw))
    return raw[:at] + chance.randbytes(chance.choice([1, 2, 16, 512])) + raw[at:]


def spliced(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(len(raw))] + other[chance.randrange(len(other)) :]


def resized(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    """Write a number over what may be a length."""
    size = chance.choice(SIZES)
    form = chance.choice([">I", "<I", ">H", "<H", "<Q", "octal"])
    field = b"%011o" % size if form == "octal" else struct.pack(form, size & _most(form))
    at = chance.randrange(len(raw))
    raw[at : at + len(field)] = field
    return raw


def revalued(raw: bytearray, other: bytes, chance: random.Random) -> bytes:
    """Put something else in the place of a value in a JSON file."""
    try:
        root = [json.loads(raw)]
    except (ValueError, RecursionError):
        return flipped(raw, other, chance)
    place: Any = root
    while isinstance(place, list | dict) and place:
        inside, name = (
            place,
            chance.choice([*(place if isinstance(place, dict) else range(len(place)))]),
        )
        place = place[name]
        if chance.random() < 0.2:
            break
    inside[name] = chance.choice(VALUES)
    return json.dumps(root[0]).encode()


WAYS = (flipped, flipped_early, cut, zeroed, copied, inserted, spliced, resized, revalued, revalued)


def _piece(raw: bytearray, chance: random.Random) -> tuple[int, int]:
    return chance.randrange(len(raw)), chance.choice([1, 4, 64, 512, 2_048])


def _most(form: str) -> int:
    return 2 ** (8 * struct.calcsize(form)) - 1


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpegs() -> list[bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        *(
            saved(picture(40, 24), "JPEG", subsampling=sampling, progressive=progressive)
            for sampling in (0, 1, 2)
            for progressive in (False, True)
        ),
        saved(picture(33, 17, "L"), "JPEG"),
        saved(picture(33, 17, "CMYK"), "JPEG"),
        saved(picture(33, 17), "JPEG", keep_rgb=True, subsampling=0),
        saved(picture(33, 17), "JPEG", restart_marker_blocks=2),
        saved(picture(33, 17), "JPEG", exif=turned, icc_profile=b"colours" * 40),
    ]


def images() -> list[bytes]:
    turned = Image.Exif()
    turned[0x0112] = 8
    modes = ("1", "L", "LA", "P", "RGB", "RGBA")
    return [
        *jpegs(),
        *(saved(picture(12, 9, mode), "PNG") for mode in modes),
        saved(Image.fromarray(np.arange(99, dtype=np.uint16).reshape(9, 11) * 600), "PNG"),
        saved(picture(12, 9, "P"), "PNG", transparency=3, exif=turned),
        saved(picture(12, 9), "WEBP", exif=turned),
        saved(picture(12, 9, "RGBA"), "WEBP", lossless=True),
        saved(picture(9, 9), "WEBP", save_all=True, append_images=[picture(9, 9, "L")]),
    ]


PAIRS = [
    Pair(
        key=f"pair{number}",
        image=np.asarray(picture(8, 8 + number)),
        captions=(f"picture {number}", "a Hündchen"),
        label="dog" if number else None,
    )
    for number in range(4)
]


class Case(ABC):
    """A kind of file: good ones to start from, and how one is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = self.start()

    @abstractmethod
    def start(self) -> list[bytes]:
        """Make the good files."""

    @abstractmethod
    def read(self, raw: bytes) -> Iterable[object]:
        """Give what came out of it: pairs, damaged ones, whatever; or raise."""


class Images(Case):
    def start(self) -> list[bytes]:
        return images()

    def read(self, raw: bytes) -> Iterable[object]:
        yield decode_image(raw)


class FastImages(Case):
    """Both decoders of JPEG files must say the same, where the fast one says anything."""

    def start(self) -> list[bytes]:
        return jpegs()

    def read(self, raw: bytes) -> Iterable[object]:
        bare, _ = bare_jpeg(raw)
        try:
            fast: Any = _decode_plain_jpeg(bare, None)
        except DamagedImage:
            with pytest.raises(DamagedImage):
                _decode(bare)
            raise
        slow = _decode(bare)
        assert fast is None or np.array_equal(fast, slow)
        yield slow


class Captions(Case):
    def start(self) -> list[bytes]:
        texts = ["a dog", "שלום 🐶", 'a "quoted" one\\']
        return [
            json.dumps({"captions": texts, "width": 3.5}).encode(),
            json.dumps({"caption": texts[1], "more": [{"a": None}]}, ensure_ascii=False).encode(),
            "\n".join(texts).encode(),
        ]

    def read(self, raw: bytes) -> Iterable[object]:
        for kind in ("txt", "json"):
            yield self.one(raw, kind)

    @staticmethod
    def one(raw: bytes, kind: Any) -> object:
        try:
            return parse_captions(raw, kind)
        except DamagedCaption as error:
            return Damaged(key="", reason=error.reason)


def tar_of(pairs: list[Pair], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for pair in pairs:
            text = "\n".join(pair.captions).encode()
            for suffix, content in (("png", encode_image(pair.image)), ("txt", text)):
                info = tarfile.TarInfo(f"{pair.key * 40}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd" * 20
        tar.addfile(link)
    return file.getvalue()


class Tars(Case):
    def start(self) -> list[bytes]:
        return [tar_of(PAIRS, form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]

    def read(self, raw: bytes) -> Iterable[object]:
        path = self.folder / "train-000000.tar"
        path.write_bytes(raw)
        yield from map(decoded, pairs_in_tar(path))
        yield from map(decoded, pairs_in_stream(io.BytesIO(raw), "shard"))
        shards = open_shards(self.folder, "train")
        for index in range(len(shards)):
            yield decoded(shards.read(index))


class InFolder(Case):
    """One file of a folder of shards; what is read must be what was written, or be lost."""

    name: str

    def start(self) -> list[bytes]:
        write_shards(self.folder, "train", PAIRS, per_shard=2)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.right = {self.contents(pair) for pair in PAIRS}
        return [(self.folder / self.name).read_bytes()]

    def read(self, raw: bytes) -> Iterable[object]:
        (self.folder / self.name).write_bytes(raw)
        self.told(raw)
        yield from list(find_defects(self.folder, Counts()))
        shards = open_shards(self.folder, "train")
        for index in range(len(shards)):
            pair = decoded(shards.read(index))
            assert isinstance(pair, Damaged) or self.contents(pair) in self.right
            shards.captions_of(index)
            yield pair

    def told(self, raw: bytes) -> None:
        """Let the manifest say what fits the damaged file."""

    @staticmethod
    def contents(pair: Pair) -> tuple[object, ...]:
        return pair.image.shape, pair.image.tobytes(), pair.captions, pair.label


class Manifests(InFolder):
    name = "manifest.json"


class Indices(InFolder):
    name = "train-000000.index.npy"

    def told(self, raw: bytes) -> None:
        self.manifest["shards"]["train-000000.tar"]["index_sha256"] = sha256(raw).hexdigest()
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))


class IndexedTars(InFolder):
    name = "train-000001.tar"

    def told(self, raw: bytes) -> None:
        self.manifest["shards"]["train-000001.tar"]["bytes"] = len(raw)
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))


class Tables(Case):
    """The kind of table is the first word of the file."""

    def start(self) -> list[bytes]:
        from pyarrow import parquet, table

        (self.folder / "a.png").write_bytes(encode_image(PAIRS[0].image))
        columns = {"image": ["a.png"] * 9, "caption": [f"a 'dog', {n}" for n in range(9)]}
        parquet.write_table(table(columns), self.folder / "t.parquet")
        rows = zip(*columns.values(), strict=True)
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        text = "image,caption\n" + "".join(f'a.png,"a dog, {n}"\n' for n in range(9))
        return [
            b"parquet " + (self.folder / "t.parquet").read_bytes(),
            b"jsonl   " + "\n".join(lines).encode(),
            b"csv     " + text.encode(),
        ]

    def read(self, raw: bytes) -> Iterable[object]:
        kinds = {b"p": "parquet", b"j": "jsonl"}
        path = self.folder / f"t.{kinds.get(raw[:1], 'csv')}"
        path.write_bytes(raw[8:])
        yield from map(decoded, pairs_from_table(path, "image", ("caption",)))


class Coco(Case):
    def start(self) -> list[bytes]:
        (self.folder / "a.png").write_bytes(encode_image(PAIRS[0].image))
        coco = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(["a.png", "b.png"])],
            "annotations": [{"image_id": n % 2, "caption": f"dog {n}"} for n in range(5)],
        }
        karpathy = {
            "images": [{"filename": "a.png", "split": "val", "sentences": [{"raw": "a dog"}]}]
        }
        return [json.dumps(each).encode() for each in (coco, karpathy)]

    def read(self, raw: bytes) -> Iterable[object]:
        path = self.folder / "captions.json"
        path.write_bytes(raw)
        yield from map(decoded, pairs_from_coco(path, self.folder, "val"))


class Stores(Case):
    def start(self) -> list[bytes]:
        write_tokens(
            self.folder,
            torch.randn(4, 3, 2),
            [pair.key for pair in PAIRS],
            [pair.captions for pair in PAIRS],
            orderer_hash="a" * 64,
            fingerprint="f" * 64,
        )
        return [(self.folder / "tokens.safetensors").read_bytes()]

    def read(self, raw: bytes) -> Iterable[object]:
        (self.folder / "tokens.safetensors").write_bytes(raw)
        yield TokenStore.open(self.folder)


CASES = (
    Images,
    FastImages,
    Captions,
    Tars,
    Manifests,
    Indices,
    IndexedTars,
    Tables,
    Coco,
    Stores,
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy parses headers as literals
@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_read_or_refused_in_one_line(case: type[Case], tmp_path: Path) -> None:
    read_damaged(case(tmp_path), FEW)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_a_thousand_damaged_files_are_read_or_refused(case: type[Case], tmp_path: Path) -> None:
    outcomes, slowest = read_damaged(case(tmp_path), MANY)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{case.__name__}: {dict(outcomes)}, slowest {slowest:.2f} s, {memory} MB at most")


def read_damaged(case: Case, numbers: Iterable[int]) -> tuple[Counter[str], float]:
    outcomes, slowest = Counter[str](), 0.0
    for number in numbers:
        chance = random.Random(f"{type(case).__name__} {number}")
        raw = mutated(chance.choice(case.corpus), chance.choice(case.corpus), chance)
        start = time.perf_counter()
        outcomes[outcome(case, raw)] += 1
        slowest = max(slowest, time.perf_counter() - start)
        assert slowest < SECONDS, f"{number} took {slowest:.1f} s"
    return outcomes, slowest


def outcome(case: Case, raw: bytes) -> str:
    """Say what became of a file; anything but what we promise passes through."""
    try:
        read = list(case.read(raw))
    except REFUSALS as error:
        assert type(error) in REFUSALS and raised_by_us(error.__traceback__), repr(error)
        assert "\n" not in str(error)
        return "refused"
    return "damaged" if any(isinstance(each, Damaged) for each in read) else "read"


def raised_by_us(traceback: TracebackType | None) -> bool:
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return bool(traceback) and traceback.tb_frame.f_globals["__name__"].startswith("data.")
