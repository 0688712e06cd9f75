"""An AR model that writes, reads in its own words, or starts as another's, from training to use."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from ar import ARConfig, ARModel
from orderer import Orderer, OrdererConfig, OrdererProcessor
from orderer.pieces import END_PIECE
from recipes import evaluate, generate, train_ar, train_joint
from recipes.captioning import flops_of_writing, loss_of_writing
from recipes.compute import flops_of
from recipes.experiment import Experiment

CAPTIONS = [["a red ring", "a small red ring"], ["a moon"]]


@pytest.fixture
def copied(trained: Experiment, tmp_path: Path) -> Experiment:
    """What stage 1 has left of the tiny experiment."""
    for part in ("orderer", "tokens", "held"):
        shutil.copytree(trained.out / part, tmp_path / "run" / part)
    return replace(trained, out=tmp_path / "run")


def writing(experiment: Experiment, **settings: Any) -> Experiment:
    return replace(
        experiment,
        ar={**experiment.ar, **settings},
        train_ar=replace(experiment.train_ar, caption_weight=0.1),
        evaluation=replace(experiment.evaluation, tasks=("captioning",)),
    )


def logged(out: Path, name: str) -> list[dict[str, float]]:
    """The lines of a training's steps, without those of what is measured beside."""
    lines = map(json.loads, (out / f"logs/{name}.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def test_a_model_that_writes_is_trained_tuned_and_measured(copied: Experiment) -> None:
    experiment = writing(copied)
    train_ar.main(experiment)
    config = ARModel.from_pretrained(experiment.out / "ar").config
    assert config.writes and END_PIECE in config.caption_pieces and len(config.caption_pieces) < 100
    lines = logged(experiment.out, "ar")
    assert all(line["caption"] > 0 for line in lines)
    train_joint.main(experiment)
    assert all(line["caption"] > 0 for line in logged(experiment.out, "joint"))

    evaluate.main(experiment)
    results = json.loads((experiment.out / "evaluation.json").read_text())["results"]
    for found in (results["separate"], results["joint"]["unseen"]):
        assert "captioning" not in found
        captioning = found["captioning_by_ar"]
        for name in ("log_likelihood", "exact", "overlap", "bleu", "chrf", "written"):
            assert list(captioning[name]) == ["1", "2", "4", "8", "16"]
        assert all(value < 0 for value in captioning["log_likelihood"].values())


@pytest.mark.long
def test_writing_can_be_resumed_to_the_same_bits(copied: Experiment) -> None:
    experiment = writing(copied)
    train_ar.main(experiment)
    whole = (experiment.out / "ar/model.safetensors").read_bytes()
    shutil.rmtree(experiment.out / "checkpoints/ar")
    train_ar.main(replace(experiment, checkpoint_every=2))
    shutil.rmtree(max((experiment.out / "checkpoints/ar").iterdir()))
    train_ar.main(replace(experiment, resume=True))
    assert (experiment.out / "ar/model.safetensors").read_bytes() == whole


def test_a_model_that_reads_words_of_its_own_draws(copied: Experiment, tmp_path: Path) -> None:
    experiment = replace(copied, ar={**copied.ar, "condition": "words"})
    train_ar.main(experiment)
    assert ARModel.from_pretrained(experiment.out / "ar").config.caption_pieces
    picture = tmp_path / "drawn.png"
    generate.main(generate.Config(models=experiment.out, captions=("a red ring",), out=picture))
    assert picture.is_file()


def test_a_trunk_of_transformers_is_trained_gently(copied: Experiment, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=9, num_hidden_layers=1, **sizes)
    LlamaModel(config).save_pretrained(tmp_path / "llama")
    kept = {key: x for key, x in copied.ar.items() if key not in ("width", "heads", "layers")}
    kept.pop("mlp_width")
    experiment = replace(copied, ar={**kept, "trunk": f"transformers:{tmp_path / 'llama'}"})
    train_ar.main(experiment)
    shutil.rmtree(tmp_path / "llama")
    model = ARModel.from_pretrained(experiment.out / "ar")
    assert model.config.trunk_weights is not None and model.config.layers == 1

    learner = experiment.train_ar.optim.learner(torch.nn.ModuleDict({"ar": model}), 4)
    rates = {
        id(parameter): group["lr"]
        for optimizer in learner.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    tower_lr = experiment.train_ar.optim.tower_lr
    for name, parameter in model.named_parameters():
        assert (rates[id(parameter)] == tower_lr) == name.startswith("trunk.decoder."), name


def test_pieces_are_those_of_the_training_captions() -> None:
    orderer = OrdererConfig()
    words = OrdererProcessor(36, 40)
    config = Experiment(ar={"condition": "words"}).ar_config(orderer, "", CAPTIONS)
    assert config.caption_pieces == words.pieces(CAPTIONS) and not config.writes
    assert Experiment().ar_config(orderer, "", CAPTIONS).caption_pieces == []
    with pytest.raises(ValueError, match="has 39 word pieces"):
        Experiment(ar={"condition": "words"}).ar_config(orderer, "", [["ring " * 39]])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"writes": True}, r"ar\.writes follows from train_ar\.caption_weight 0\.0, got True"),
        ({"caption_pieces": [1]}, r"ar\.caption_pieces follows from the orderer"),
        ({"trunk": "gpt2"}, "trunk must be transformers:FOLDER, got 'gpt2'"),
    ],
)
def test_what_is_not_ours_to_set_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Experiment(ar=settings).ar_config(OrdererConfig(), "", CAPTIONS)


def test_another_tokenizer_is_refused(trained: Experiment) -> None:
    other = Orderer.from_pretrained(trained.out / "orderer").config
    other.text = "transformers"
    for experiment in (writing(trained), replace(trained, ar={"condition": "words"})):
        with pytest.raises(ValueError, match="in open_clip's word pieces, beside a text tower of"):
            experiment.ar_config(other, "", CAPTIONS)
    assert not trained.ar_config(other, "", CAPTIONS).has_words


def test_captions_are_written_from_each_measured_prefix() -> None:
    settings = {"writes": True, "caption_pieces": [*range(320, 49407, 50), END_PIECE]}
    model = ARModel(ARConfig(tokens=5, token_dim=4, width=16, heads=2, layers=1, **settings))
    processor, said = OrdererProcessor(36, 40), ["a red ring"]
    lengths, heard = set(), model.caption_loss
    model.caption_loss = lambda z, text: lengths.add(z.shape[1]) or heard(z, text)
    for _ in range(40):
        loss_of_writing(model, torch.randn(1, 5, 4), said, processor)
    assert lengths == {1, 2, 4, 5}
    with_all = [
        flops_of(lambda k=k: heard(torch.randn(1, 5, 4)[:, :k], processor.text(said)).backward())
        for k in (1, 2, 4, 5)
    ]
    counted = {flops_of_writing(model, torch.randn(1, 5, 4), said, processor) for _ in range(5)}
    assert counted == {sum(with_all) // 4} and len(set(with_all)) == 4
