"""Token stores made to do harm are refused in a line."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from data import (
    TokenStore,
    write_tokens,
)
from tests.data.hostile.poison import DEEP, POISON

ABOUT = {"format": "sightline-tokens-2", "orderer_hash": "a", "fingerprint": "f"}
TOKENS = {"tokens": torch.ones(2, 3, 4), "mean": torch.zeros(3, 4), "std": torch.ones(3, 4)}
TOLD = {"keys": ["a", "b"], "captions": [["a"], ["b", "c"]], "counts": [2]}


def bytes_of(pairs: object) -> torch.Tensor:
    raw = pairs if isinstance(pairs, bytes) else json.dumps(pairs).encode()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


STORES: dict[str, dict[str, Any]] = {
    "no tokens": {"tokens": None},
    "no pairs": {"pairs": None},
    "no mean": {"mean": None},
    "tokens of two axes": {"tokens": torch.ones(2, 3)},
    "tokens of none": {"tokens": torch.ones(0, 3, 4)},
    "tokens of whole numbers": {"tokens": torch.ones(2, 3, 4, dtype=torch.int64)},
    "tokens of another number": {"tokens": torch.ones(3, 3, 4)},
    "a mean of another shape": {"mean": torch.zeros(4, 3)},
    "a mean that is not a number": {"mean": torch.full((3, 4), float("nan"))},
    "a deviation of nothing": {"std": torch.zeros(3, 4)},
    "a deviation below nothing": {"std": -torch.ones(3, 4)},
    "an infinite deviation": {"std": torch.full((3, 4), float("inf"))},
    "statistics of half precision": {"std": torch.ones(3, 4, dtype=torch.float16)},
    "pairs of floats": {"pairs": torch.ones(9)},
    "pairs of bfloat16": {"pairs": torch.ones(9, dtype=torch.bfloat16)},
    "pairs that are no JSON": {"pairs": bytes_of(b"{")},
    "pairs that are a pickle": {"pairs": bytes_of(POISON)},
    "pairs in lists in lists": {"pairs": bytes_of(DEEP)},
    "pairs that are a list": {"pairs": bytes_of([])},
    "keys too few": {"pairs": bytes_of({**TOLD, "keys": ["a"]})},
    "keys that are numbers": {"pairs": bytes_of({**TOLD, "keys": [1, 2]})},
    "captions too few": {"pairs": bytes_of({**TOLD, "captions": [["a"]]})},
    "an image without captions": {"pairs": bytes_of({**TOLD, "captions": [["a"], []]})},
    "captions that are null": {"pairs": bytes_of({**TOLD, "captions": [["a"], None]})},
    "captions that are numbers": {"pairs": bytes_of({**TOLD, "captions": [["a"], [7]]})},
    "counts of another sum": {"pairs": bytes_of({**TOLD, "counts": [3]})},
    "counts below nothing": {"pairs": bytes_of({**TOLD, "counts": [3, -1]})},
    "counts as floats": {"pairs": bytes_of({**TOLD, "counts": [2.0]})},
}


@pytest.mark.parametrize("name", STORES)
def test_a_hostile_token_store_is_refused_in_a_line(folder: Path, name: str) -> None:
    tensors = {**TOKENS, "pairs": bytes_of(TOLD), **STORES[name]}
    whole = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(whole, folder / "tokens.safetensors", metadata=ABOUT)
    with pytest.raises(ValueError, match=r"is damaged: its parts do not belong together$"):
        TokenStore.open(folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8) + b"{}",
        struct.pack("<Q", 9) + b"{" * 9,
        POISON,
        b"PK\3\4" + bytes(99),
    ],
)
def test_what_is_no_token_store_is_refused_in_a_line(folder: Path, raw: bytes) -> None:
    (folder / "tokens.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match=r"tokens\.safetensors is damaged: ") as refused:
        TokenStore.open(folder)
    assert "\n" not in str(refused.value)


def test_a_store_that_says_less_about_itself_is_refused(folder: Path) -> None:
    write_tokens(folder, torch.ones(2, 3, 4), "ab", [["a"], ["b"]], orderer_hash="", fingerprint="")
    save_file(
        {**TOKENS, "pairs": bytes_of(TOLD)},
        folder / "tokens.safetensors",
        metadata={"format": ABOUT["format"]},
    )
    with pytest.raises(ValueError, match="do not belong together"):
        TokenStore.open(folder)
