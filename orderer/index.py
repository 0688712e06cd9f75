"""Embeddings of a set of images at some prefixes, as a folder that is bound to its orderer.

    index.safetensors   prefix-K [N, E] for each prefix, unit length; rows [N]; and, as JSON bytes,
                        the keys and captions of the images
    index.json          the format, the hashes of the orderer and what it read; see `About`

N images   E size of the embedding
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .model import Orderer
from .saved import read_settings

FORMAT_VERSION = 1
TENSORS, ABOUT = "index.safetensors", "index.json"


@dataclass(frozen=True, kw_only=True)
class About:
    """What an index was made of."""

    encoding_hash: str
    """Of the orderer, `Orderer.encoding_hash`."""
    embedding_hash: str
    """Of its readout and text tower, `Orderer.embedding_hash`."""
    orderer: dict[str, str | None]
    """The name of the orderer and its commit on a hub, if it is from one."""
    fingerprint: str
    """Of the pairs."""
    data: dict[str, Any]
    """How the pairs are opened."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Pairs that were left out, by reason."""

    def check_orderer(self, model: Orderer) -> None:
        """Refuse an orderer whose embeddings cannot be compared with these.

        Raises:
            ValueError: if its encoder, readout or text tower is another.
        """
        for what, hash_, own in (
            ("encoder", self.encoding_hash, model.encoding_hash()),
            ("readout and text tower", self.embedding_hash, model.embedding_hash()),
        ):
            if hash_ != own:
                raise ValueError(
                    f"this index was made by another orderer, {self.orderer['name']}: its {what} "
                    f"is {hash_[:12]}, not {own[:12]}"
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalIndex:
    """Unit embeddings of N images at some prefixes; see `orderer.search` to search in them."""

    embeddings: Mapping[int, Float[Tensor, "N E"]]
    """By prefix; mapped into memory where the index was opened."""
    keys: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    rows: Int[Tensor, "N"]
    """The number of each image in the pairs that were read."""
    about: About

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, prefix: int | None = None) -> Float[Tensor, "N E"]:
        """The embeddings at a prefix, the longest by default.

        Raises:
            ValueError: for a prefix that the index does not have.
        """
        prefix = max(self.embeddings) if prefix is None else prefix
        if prefix not in self.embeddings:
            known = ", ".join(map(str, sorted(self.embeddings)))
            raise ValueError(f"this index has the prefixes {known}, got {prefix}")
        return self.embeddings[prefix]

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder, in place of an older one.

        Raises:
            ValueError: if its parts do not belong together.
        """
        if not self._is_whole():
            raise ValueError(f"an index for {folder} needs the same images in all its parts")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"format_version": FORMAT_VERSION, **asdict(self.about)}
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        tensors = {f"prefix-{k}": each.contiguous() for k, each in self.embeddings.items()}
        tensors |= {"rows": self.rows, "keys": _bytes(self.keys), "captions": _bytes(self.captions)}
        written = folder / f".{TENSORS}.tmp", folder / f".{ABOUT}.tmp"
        save_file(tensors, written[0], metadata={"about": _digest(text.encode())})
        written[1].write_text(text)
        for path, name in zip(written, (TENSORS, ABOUT), strict=True):
            os.replace(path, folder / name)

    @classmethod
    def open(cls, folder: str | Path) -> "RetrievalIndex":
        """Open what `save` has written.

        Raises:
            FileNotFoundError: if there is no index in the folder.
            ValueError: if it is of another format, damaged, or put together from two.
        """
        folder = Path(folder)
        if not (folder / ABOUT).is_file() or not (folder / TENSORS).is_file():
            raise FileNotFoundError(f"{folder} is not an index, it needs {TENSORS} and {ABOUT}")
        settings = read_settings(folder, ABOUT)
        version = settings.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{folder} is an index of format {version!r}, not {FORMAT_VERSION}")
        try:
            with safe_open(folder / TENSORS, framework="pt") as file:
                bound = (file.metadata() or {}).get("about")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            index = cls._of(tensors, About(**settings))
            whole = index._is_whole() and bound == _digest((folder / ABOUT).read_bytes())
        except SafetensorError as error:
            raise ValueError(
                f"{folder / TENSORS} is damaged: {str(error).splitlines()[0]}"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"{folder} is damaged: its parts do not belong together")
        return index

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], about: About) -> "RetrievalIndex":
        captions = json.loads(tensors["captions"].numpy().tobytes())
        return cls(
            embeddings={
                int(name.removeprefix("prefix-")): tensor
                for name, tensor in tensors.items()
                if name.startswith("prefix-")
            },
            keys=tuple(json.loads(tensors["keys"].numpy().tobytes())),
            captions=tuple(tuple(of_one) for of_one in captions),
            rows=tensors["rows"],
            about=about,
        )

    def _is_whole(self) -> bool:
        number = len(self.rows)
        shapes = {tuple(each.shape) for each in self.embeddings.values()}
        texts = [getattr(self.about, each.name) for each in fields(self.about) if each.type is str]
        return (
            number > 0
            and self.rows.dtype == torch.long
            and len(shapes) == 1
            and all(len(shape) == 2 and shape[0] == number for shape in shapes)
            and all(each.is_floating_point() for each in self.embeddings.values())
            and len(self.keys) == number == len(self.captions)
            and all(isinstance(text, str) for text in (*self.keys, *texts))
            and isinstance(self.about.orderer.get("name"), str)
            and isinstance(self.about.data, dict)
        )


def _bytes(value: Sequence[Any]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
