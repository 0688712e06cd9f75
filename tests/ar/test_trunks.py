"""Trunks of transformers: causal decoders from local folders, read with and without a cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from ar import ARConfig, ARModel, Sampling, complete_settings, start_ar
from ar.reading import check_reading
from ar.sampling import Reader
from orderer.pieces import END_PIECE, START_PIECE

SIZES = {"vocab_size": 9, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
LLAMA = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 8, "sliding_window": 18, "pad_token_id": 0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "gpt2": ("GPT2", {"vocab_size": 9, "n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 20}),
    "qwen2": ("Qwen2", GROUPED),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 18}),
    "gemma3_text": (
        "Gemma3Text",
        {**GEMMA, "layer_types": ["sliding_attention", "full_attention"]},
    ),
}
SMALL = {
    "tokens": 4,
    "token_dim": 6,
    "condition": "text",
    "condition_dim": 16,
    "head_width": 16,
    "head_layers": 2,
    "context_length": 6,
}
PIECES = [10, 20, END_PIECE]
ROUNDING = {"atol": 2e-5, "rtol": 0.0}
every_kind = pytest.mark.parametrize("kind", KINDS)


def saved(folder: Path, kind: str, part: str = "Model", **settings: Any) -> Path:
    """A tiny decoder with random weights that are large enough to matter."""
    name, usual = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**usual, **settings})
    model = getattr(transformers, f"{name}{part}")(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def started(folder: Path, **settings: Any) -> ARModel:
    model = start_ar(complete_settings({**SMALL, "trunk": f"transformers:{folder}", **settings}))
    for layer in model.head.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


@pytest.fixture
def condition() -> tuple[Tensor, Tensor]:
    """Captions of five and of three word pieces."""
    return torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[5], [3]])


@pytest.mark.parametrize(
    ("kind", "part", "prefix"),
    [
        *[(kind, "Model", "") for kind in KINDS],
        ("llama", "ForCausalLM", "model."),
        ("gpt2", "LMHeadModel", "transformer."),
    ],
)
def test_a_trunk_starts_with_the_weights_of_its_folder(
    kind: str, part: str, prefix: str, tmp_path: Path
) -> None:
    model = started(saved(tmp_path / "decoder", kind, part))
    theirs = load_file(tmp_path / "decoder/model.safetensors")
    ours = model.trunk.decoder.state_dict()
    assert ours and all(torch.equal(ours[key], theirs[prefix + key]) for key in ours)
    assert not any("embed_tokens" in key or "wte" in key for key in ours)


@torch.no_grad()
@every_kind
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_reading_with_a_cache_is_one_full_pass(
    kind: str, cache: Any, tmp_path: Path, condition: tuple[Tensor, Tensor]
) -> None:
    model = started(saved(tmp_path, kind))
    given = model.conditioned_on_text(*condition)
    null, tokens = model.unconditioned(2), torch.randn(2, 3, 6)
    sampling = Sampling(guidance_scale=2.0, context_scale=3.0, cache=cache)
    reader = Reader(model.trunk, given, null, sampling, 4)
    whole, blank = model.trunk(tokens, given), torch.zeros_like(tokens)
    without = model.trunk(tokens, null), model.trunk(blank, given)
    for k in range(4):
        reader.read(tokens[:, :k])
        seen = reader.seen(k, (2.0, 3.0))
        assert len(seen.without) == 2 and whole.std() > 0.1
        torch.testing.assert_close(seen.states, whole[:, k], **ROUNDING)
        for found, full in zip(seen.without, without, strict=True):
            torch.testing.assert_close(found, full[:, k], **ROUNDING)


@torch.no_grad()
@every_kind
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_peeking_with_a_cache_is_one_full_pass_and_leaves_no_trace(
    kind: str, cache: Any, tmp_path: Path, condition: tuple[Tensor, Tensor]
) -> None:
    model = started(saved(tmp_path, kind))
    given = model.conditioned_on_text(*condition)
    null, tokens = model.unconditioned(2), torch.randn(2, 3, 6)
    reader = Reader(model.trunk, given, null, Sampling(guidance_scale=1.0, cache=cache), 4)
    rows, peeked = model.trunk.sequence(tokens), torch.randn(2, 1, 32)
    for k in range(4):
        reader.read(tokens[:, :k])
        peek = reader.seen(k, ()).peek
        assert peek is not None
        read = model.trunk.read(given, torch.cat([rows[:, : k + 1], peeked], dim=1))
        torch.testing.assert_close(peek(peeked), read.last_hidden_state[:, -1], **ROUNDING)


@torch.no_grad()
@every_kind
def test_padding_a_condition_changes_nothing(
    kind: str, tmp_path: Path, condition: tuple[Tensor, Tensor]
) -> None:
    model, tokens = started(saved(tmp_path, kind)), torch.randn(2, 4, 6)
    words, keep = condition
    whole = model(tokens, model.conditioned_on_text(words, keep))
    short = model.conditioned_on_text(words[1:, :3], keep[1:, :3])
    torch.testing.assert_close(whole[1:], model(tokens[1:], short), **ROUNDING)


@every_kind
def test_a_state_never_sees_its_own_token_or_later_ones(kind: str, tmp_path: Path) -> None:
    model, tokens = started(saved(tmp_path, kind)), torch.randn(1, 4, 6).requires_grad_()
    states = model(tokens, model.unconditioned(1)) @ torch.randn(32)
    for k in range(4):
        (gradient,) = torch.autograd.grad(states[0, k], tokens, retain_graph=True)
        reached = gradient[0].abs().sum(dim=-1).gt(0).tolist()
        assert reached == [i < k for i in range(4)]


@torch.no_grad()
@every_kind
def test_a_saved_model_needs_no_folder_of_its_trunk(
    kind: str, tmp_path: Path, condition: tuple[Tensor, Tensor]
) -> None:
    words = {"writes": True, "caption_pieces": PIECES}
    model = started(saved(tmp_path / "decoder", kind), **words)
    model.save_pretrained(tmp_path / "ar")
    shutil.rmtree(tmp_path / "decoder")
    assert str(tmp_path) not in (tmp_path / "ar/config.json").read_text()
    again = ARModel.from_pretrained(tmp_path / "ar")
    assert again.config.trunk_weights is not None
    assert again.config.trunk_weights["from"] == "transformers:decoder"
    tokens, given = torch.randn(2, 4, 6), model.conditioned_on_text(*condition)
    assert torch.equal(again(tokens, given), model(tokens, given))
    assert torch.equal(again.generate(given, seeds=[0, 1]), model.generate(given, seeds=[0, 1]))
    assert torch.equal(again.caption(tokens), model.caption(tokens))


@every_kind
@pytest.mark.parametrize("head", ["flow", "in_trunk"])
def test_both_losses_reach_every_parameter(kind: str, head: str, tmp_path: Path) -> None:
    model = started(saved(tmp_path, kind), head=head, writes=True, caption_pieces=PIECES)
    said = torch.tensor([[START_PIECE, 10, END_PIECE], [START_PIECE, 20, END_PIECE]])
    given = model.conditioned_on_text(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    given = model.drop(given, torch.tensor([True, False]))
    tokens = torch.randn(2, 4, 6)
    (model.loss(tokens, given).sum() + model.caption_loss(tokens, said)).backward()
    for name, parameter in model.named_parameters():
        if kind == "gpt2" and "wpe" in name:
            continue
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_what_follows_from_the_trunk_is_filled_in(tmp_path: Path) -> None:
    spec = f"transformers:{saved(tmp_path / 'decoder', 'gpt2')}"
    config = complete_settings({**SMALL, "trunk": spec})
    assert (config.width, config.heads, config.layers) == (32, 4, 2)
    assert config.trunk_architecture is not None and config.trunk_weights is not None
    assert config.trunk_architecture["config"]["model_type"] == "gpt2"
    assert config.trunk_weights["from"] == spec and len(config.trunk_weights["sha256"]) == 64
    for name in ("width", "heads", "layers", "mlp_width"):
        with pytest.raises(ValueError, match=f"{name} follows from transformers:.* got 8"):
            complete_settings({**SMALL, "trunk": spec, name: 8})


def test_without_a_named_trunk_it_is_a_llama_of_our_sizes() -> None:
    model = start_ar(complete_settings({**SMALL, "width": 16, "heads": 2, "layers": 1}))
    assert isinstance(model.trunk.decoder, transformers.LlamaModel)
    assert model.config == ARConfig(**SMALL, width=16, heads=2, layers=1)


def test_positions_that_end_too_early_are_refused(tmp_path: Path) -> None:
    spec = f"transformers:{saved(tmp_path, 'gpt2', n_positions=11)}"
    model = started(tmp_path)  # 6 pieces, the start and 4 tokens
    model.generate(
        model.conditioned_on_text(torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.bool))
    )
    with pytest.raises(ValueError, match="the trunk reads 11 places, 12 are needed"):
        complete_settings({**SMALL, "trunk": spec, "tokens": 5})
    with pytest.raises(ValueError, match="the trunk reads 11 places, 17 are needed"):
        complete_settings({**SMALL, "trunk": spec, "writes": True, "caption_pieces": PIECES})


def test_a_window_shorter_than_what_is_read_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "mistral", sliding_window=11)
    with pytest.raises(ValueError, match="looks back 11 places, more than 11 are needed"):
        complete_settings({**SMALL, "trunk": f"transformers:{folder}"})


def test_a_model_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    bert = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 64}
    transformers.BertModel(transformers.BertConfig(**bert)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reads from left to right, a bert model does not"):
        complete_settings({**SMALL, "trunk": f"transformers:{tmp_path}"})


def test_layers_that_keep_a_state_are_refused(tmp_path: Path) -> None:
    settings = {**GROUPED, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
    transformers.Lfm2Model(transformers.Lfm2Config(**settings)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="keep what they read in a cache, got conv"):
        complete_settings({**SMALL, "trunk": f"transformers:{tmp_path}"})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Bloom", {"vocab_size": 9, "hidden_size": 32, "n_layer": 1, "n_head": 4}),
        ("Mamba", {"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}),
    ],
)
def test_a_decoder_that_cannot_be_masked_or_placed_is_refused(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"a {name.lower()} model can be no trunk"):
        start_ar(complete_settings({**SMALL, "trunk": f"transformers:{tmp_path}"}))


def test_a_trunk_that_looks_ahead_is_found_out(tmp_path: Path) -> None:
    model = started(saved(tmp_path, "llama"))
    check_reading(model.trunk)
    before = model.trunk.decoder.forward

    def ahead(**inputs: Any) -> Any:
        return before(**{**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    model.trunk.decoder.forward = ahead
    with pytest.raises(ValueError, match="a llama model can be no trunk, it sees later places"):
        check_reading(model.trunk)


def test_folders_that_hold_no_trunk_are_refused(tmp_path: Path) -> None:
    def refused(spec: Any, sentence: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=sentence):
            start_ar(complete_settings({**SMALL, "trunk": spec}))

    refused("gpt2", "trunk must be transformers:FOLDER, got 'gpt2'")
    refused("transformers:", "trunk must be transformers:FOLDER")
    refused(3, "trunk must be transformers:FOLDER, got 3")
    refused(f"transformers:{tmp_path / 'nowhere'}", "is not a folder", FileNotFoundError)
    folder = saved(tmp_path / "decoder", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "a.B"}}))
    refused(f"transformers:{folder}", "code of its own")
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    refused(f"transformers:{folder}", "do not fit")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(f"transformers:{folder}", "is not in safetensors")
