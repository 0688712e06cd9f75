"""Text towers of other libraries: their own numbers and tokenizer, saved with the orderer."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from orderer import (
    Orderer,
    OrdererConfig,
    OrdererProcessor,
    complete_settings,
    start_orderer,
    start_processor,
)

SMALL = {
    "image_size": 16,
    "patch_size": 4,
    "tokens": 4,
    "token_dim": 6,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "readout_layers": 1,
    "text_heads": 2,
    "embed_dim": 8,
}
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "blue", "ring", "moon"]
SIZES = {"vocab_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("Bert", {**SIZES, "intermediate_size": 32, "max_position_embeddings": 12}, "mean"),
    "llama": ("Llama", {**SIZES, "intermediate_size": 32, "max_position_embeddings": 12}, "last"),
    "clip": (
        "CLIPText",
        {**SIZES, "intermediate_size": 32, "max_position_embeddings": 12, "eos_token_id": 2},
        "pooled",
    ),
    "siglip": (
        "SiglipText",
        {**SIZES, "intermediate_size": 32, "max_position_embeddings": 12, "pad_token_id": 0},
        "pooled",
    ),
    "t5": ("T5", {"vocab_size": 9, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}, "mean"),
}
CAPTIONS = ["a red ring", "a moon"]


def tokenizer(is_ended: bool = True) -> Tokenizer:
    rules = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    rules.pre_tokenizer = Whitespace()
    if is_ended:
        rules.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return rules


def saved(folder: Path, kind: str) -> Any:
    name, settings, _ = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**settings)
    network = "T5EncoderModel" if kind == "t5" else f"{name}Model"
    model = getattr(transformers, network)(config).eval()
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return model


def started(spec: str, **settings: Any) -> tuple[Orderer, OrdererProcessor]:
    config = complete_settings({**SMALL, "text": spec, **settings})
    return start_orderer(config).eval(), start_processor(config)


def theirs(model: Any, text: Tensor, kind: str) -> Tensor:
    """The state of each text, one at a time and without padding."""
    states = []
    for row in text:
        ids = row[None, : int(row.tolist().index(2)) + 1]
        if kind == "siglip":
            ids = torch.nn.functional.pad(ids, (0, 12 - ids.shape[1]))
        made = model(input_ids=ids)
        pooling = KINDS[kind][2]
        last = made.last_hidden_state
        states.append(
            made.pooler_output
            if pooling == "pooled"
            else last.mean(dim=1)
            if pooling == "mean"
            else last[:, -1]
        )
    return torch.cat(states)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_the_state_that_its_kind_of_model_has_for_it(kind: str, tmp_path: Path) -> None:
    model = saved(tmp_path, kind)
    orderer, processor = started(f"transformers:{tmp_path}")
    text = processor.text(CAPTIONS)
    assert text.tolist() == [[1, 4, 5, 7, 2], [1, 4, 8, 2, 0]]
    assert orderer.config.text_pooling == KINDS[kind][2]
    with torch.no_grad():
        states = theirs(model, text, kind)
        expected = torch.nn.functional.normalize(orderer.text.project(states), dim=-1)
        torch.testing.assert_close(orderer.embed_texts(text), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_orderer_needs_no_folder_of_its_encoder(kind: str, tmp_path: Path) -> None:
    saved(tmp_path / "encoder", kind)
    orderer, processor = started(f"transformers:{tmp_path / 'encoder'}", text_trained=False)
    orderer.save_pretrained(tmp_path / "orderer")
    processor.save_pretrained(tmp_path / "orderer")
    shutil.rmtree(tmp_path / "encoder")
    again = Orderer.from_pretrained(tmp_path / "orderer")
    text = OrdererProcessor.from_pretrained(tmp_path / "orderer").text(CAPTIONS)
    assert torch.equal(text, processor.text(CAPTIONS))
    assert torch.equal(again.embed_texts(text), orderer.embed_texts(text))
    learning = {name for name, p in again.text.named_parameters() if p.requires_grad}
    assert learning == {"project.weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_and_words_end_where_the_text_does(
    kind: str, tmp_path: Path
) -> None:
    saved(tmp_path, kind)
    orderer, processor = started(f"transformers:{tmp_path}")
    short = processor.text(CAPTIONS[1:])
    padded = torch.nn.functional.pad(short, (0, 3))
    torch.testing.assert_close(
        orderer.embed_texts(padded), orderer.embed_texts(short), atol=1e-6, rtol=0
    )
    words, kept = orderer.embed_words(padded)
    assert words.shape == (1, 7, orderer.config.text_width)
    assert kept.tolist() == [[True] * 4 + [False] * 3]


def test_what_follows_from_the_encoder_need_not_be_said(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    orderer, processor = started(f"transformers:{tmp_path}")
    config = orderer.config
    assert (config.text_width, config.vocabulary, config.text_end) == (16, 9, 2)
    assert config.context_length == processor.context_length == 12
    assert started(f"transformers:{tmp_path}", context_length=6)[1].context_length == 6
    with pytest.raises(ValueError, match="at most 12 pieces, got context_length 13"):
        started(f"transformers:{tmp_path}", context_length=13)
    with pytest.raises(ValueError, match=r"text_width follows from .* and is 16, got 32"):
        started(f"transformers:{tmp_path}", text_width=32)


def test_a_caption_too_long_for_the_encoder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    _, processor = started(f"transformers:{tmp_path}", context_length=5)
    assert processor.fits("a red ring") and not processor.fits("a red blue ring")
    with pytest.raises(ValueError, match="has 4 word pieces, this orderer reads at most 3"):
        processor.text(["a red blue ring"])


def test_a_tokenizer_that_ends_no_text_is_given_its_end(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    tokenizer(is_ended=False).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        ValueError, match=r"have no end: tokenizer_config\.json must name an eos_to"
    ):
        started(f"transformers:{tmp_path}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "[SEP]"}))
    _, processor = started(f"transformers:{tmp_path}")
    assert processor.text(CAPTIONS).tolist() == [[4, 5, 7, 2], [4, 8, 2, 0]]
    processor.save_pretrained(tmp_path / "processor")
    again = OrdererProcessor.from_pretrained(tmp_path / "processor")
    assert torch.equal(again.text(CAPTIONS), processor.text(CAPTIONS))


def test_only_what_is_trained_has_gradients(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    for is_trained in (False, True):
        orderer, processor = started(f"transformers:{tmp_path}", text_trained=is_trained)
        orderer.train()
        assert orderer.text.encoder.network.training is is_trained
        orderer.embed_texts(processor.text(CAPTIONS))[:, 0].sum().backward()
        reached = {n for n, p in orderer.text.named_parameters() if p.grad is not None}
        every = {name for name, _ in orderer.text.named_parameters()}
        assert reached == (every if is_trained else {"project.weight"})


@pytest.fixture
def clip(tmp_path: Path) -> Any:
    """A model that open_clip knows as `tiny-text`, and its file."""
    text = {"width": 24, "heads": 2, "layers": 2, "context_length": 12}
    vision = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8}
    settings = {"embed_dim": 10, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    (tmp_path / "tiny-text.json").write_text(json.dumps(settings))
    foreign = {**settings, "text_cfg": {**text, "hf_tokenizer_name": "somebody/pieces"}}
    (tmp_path / "tiny-foreign.json").write_text(json.dumps(foreign))
    open_clip.add_model_config(tmp_path)
    model = open_clip.create_model("tiny-text").eval()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    return model


def test_open_clips_text_tower_embeds_as_in_its_own_model(clip: Any, tmp_path: Path) -> None:
    sizes = {name: value for name, value in SMALL.items() if name != "embed_dim"}
    spec = f"open_clip:tiny-text@{tmp_path / 'clip.safetensors'}"
    orderer = start_orderer(complete_settings({**sizes, "text": spec})).eval()
    text = start_processor(orderer.config).text(CAPTIONS)
    full = open_clip.SimpleTokenizer(context_length=12)(CAPTIONS)
    with torch.no_grad():
        expected = clip.encode_text(full, normalize=True)
    torch.testing.assert_close(orderer.embed_texts(text), expected, atol=1e-5, rtol=1e-5)
    assert orderer.embed_words(text)[0].shape[2] == orderer.config.text_width == 24
    orderer.save_pretrained(tmp_path / "orderer")
    (tmp_path / "clip.safetensors").unlink()
    again = Orderer.from_pretrained(tmp_path / "orderer")
    assert torch.equal(again.embed_texts(text), orderer.embed_texts(text))


def test_a_text_tower_on_another_tokenizer_is_refused(clip: Any) -> None:
    with pytest.raises(ValueError, match="has hf_tokenizer_name 'somebody/pieces', only those"):
        complete_settings({**SMALL, "text": "open_clip:tiny-foreign"})


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
        started(f"transformers:{tmp_path}")


def test_a_tokenizer_with_code_or_too_many_pieces_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    rules = tokenizer()
    rules.add_tokens(["more"])
    rules.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has 10 pieces, its model knows 9"):
        started(f"transformers:{tmp_path}")
    settings = {"auto_map": {"AutoTokenizer": "code.Words"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"asks for code of its own \(auto_map\)"):
        started(f"transformers:{tmp_path}")


def test_a_text_tower_of_our_own_is_trained() -> None:
    with pytest.raises(ValueError, match="text_trained must be true"):
        OrdererConfig(text_trained=False)


def test_words_are_read_in_open_clips_pieces_only(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    _, processor = started(f"transformers:{tmp_path}")
    with pytest.raises(ValueError, match="in open_clip's word pieces, got a local tokenizer's"):
        processor.words(processor.text(CAPTIONS))
