"""What the token store promises."""

from pathlib import Path

import pytest
import torch

from data import TokenStore, write_tokens

CAPTIONS = [(f"picture {n}", "a picture") for n in range(6)]
KEYS = [f"key{n}" for n in range(6)]


def random_tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(seed))


def write(path: Path, tokens: torch.Tensor) -> None:
    write_tokens(path, tokens, KEYS, CAPTIONS, orderer_hash="a" * 64, fingerprint="f" * 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    tokens = random_tokens().to(dtype)
    write(tmp_path / "store", tokens)
    store = TokenStore.open(tmp_path / "store")
    assert torch.equal(store.tokens, tokens) and len(store) == 6
    assert (store.keys, store.captions) == (tuple(KEYS), tuple(CAPTIONS))
    assert store.counts == (6,)
    assert (store.orderer_hash, store.fingerprint) == ("a" * 64, "f" * 64)


def test_statistics_standardise_each_position_and_channel(tmp_path: Path) -> None:
    write(tmp_path, random_tokens() * 5 + 2)
    store = TokenStore.open(tmp_path)
    standard = (store.tokens - store.mean) / store.std
    assert torch.allclose(standard.mean(0), torch.zeros(4, 3), atol=1e-6)
    assert torch.allclose(standard.square().mean(0), torch.ones(4, 3), atol=1e-5)


def test_a_constant_channel_can_be_divided_by_its_std(tmp_path: Path) -> None:
    write(tmp_path, torch.ones(6, 4, 3))
    store = TokenStore.open(tmp_path)
    assert ((store.tokens - store.mean) / store.std).eq(0).all()


def test_a_store_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, random_tokens(0))
    write(tmp_path, random_tokens(1))
    assert torch.equal(TokenStore.open(tmp_path).tokens, random_tokens(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokens.safetensors"]


def test_tokens_of_another_orderer_are_refused_by_both_names(tmp_path: Path) -> None:
    write(tmp_path, random_tokens())
    store = TokenStore.open(tmp_path)
    store.check_orderer("a" * 64)
    with pytest.raises(ValueError, match=f"orderer {'a' * 12}, not by orderer {'b' * 12}$"):
        store.check_orderer("b" * 64)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a token store"):
        TokenStore.open(tmp_path)


def test_a_cut_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path, random_tokens())
    path = tmp_path / "tokens.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged"):
        TokenStore.open(tmp_path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write(tmp_path, random_tokens())
    save_file({"weight": torch.ones(2)}, tmp_path / "tokens.safetensors")
    with pytest.raises(ValueError, match="not a token store of format"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("tokens", [torch.zeros(0, 4, 3), torch.full((6, 4, 3), float("nan"))])
def test_no_tokens_and_broken_tokens_are_not_written(tmp_path: Path, tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be finite and of at least one image"):
        write(tmp_path / "store", tokens)
    assert not (tmp_path / "store").exists()


def test_keys_captions_and_counts_must_be_of_all_images(tmp_path: Path) -> None:
    about = {"orderer_hash": "a", "fingerprint": "f"}
    for keys, captions, counts in (
        (KEYS[1:], CAPTIONS, [6]),
        (KEYS, [("one",)], [6]),
        (KEYS, CAPTIONS, [5]),
    ):
        with pytest.raises(ValueError, match="6 images need as many keys and captions, got"):
            write_tokens(tmp_path, random_tokens(), keys, captions, counts=counts, **about)
