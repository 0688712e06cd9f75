"""The encoder 'cross' in training: who moves its matrices, and what it starts with."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from orderer import Orderer, OrdererConfig
from recipes import train_orderer
from recipes.experiment import Experiment
from recipes.training_settings import OptimSettings


@pytest.fixture
def crossed(tiny: Experiment, tmp_path: Path) -> Experiment:
    """The tiny experiment with the other encoder, to start as a small Q-Former."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = Blip2QFormerConfig(**sizes, intermediate_size=64, encoder_hidden_size=3 * 12**2)
    Blip2QFormerModel(config).save_pretrained(tmp_path / "qformer")
    training = replace(tiny.train_orderer, qformer=tmp_path / "qformer")
    settings = {**tiny.orderer, "encoder": "cross"}
    return replace(tiny, out=tmp_path / "run", orderer=settings, train_orderer=training)


def weights(experiment: Experiment) -> bytes:
    return (experiment.out / "orderer/model.safetensors").read_bytes()


def test_muon_takes_the_matrices_of_the_layers_and_nothing_else() -> None:
    encoder = Orderer(OrdererConfig(encoder="cross", encoder_layers=3)).encoder
    learner = OptimSettings().learner(encoder, steps=1)
    names = {parameter: name for name, parameter in encoder.named_parameters()}
    muon = [names[p] for group in learner.optimizers[0].param_groups for p in group["params"]]
    assert all(name.startswith("qformer.layer.") for name in muon)
    assert len(muon) == 3 * 4 + 2 * 4 + 3 * 2  # to themselves, across, and the MLPs


def test_the_training_starts_with_the_weights_of_the_folder(crossed: Experiment) -> None:
    still = OptimSettings(muon_lr=0.0, adamw_lr=0.0, warmup_steps=0)
    training = replace(crossed.train_orderer, steps=1, optim=still)
    train_orderer.main(replace(crossed, train_orderer=training))
    found = Orderer.from_pretrained(crossed.out / "orderer").encoder.qformer.state_dict()
    wanted = Blip2QFormerModel.from_pretrained(training.qformer).encoder.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_training_that_goes_on_does_without_the_folder(
    crossed: Experiment, tmp_path: Path
) -> None:
    crossed = replace(crossed, checkpoint_every=2)
    train_orderer.main(crossed)
    straight = weights(crossed)
    shutil.rmtree(crossed.out / "orderer")
    shutil.rmtree(max((crossed.out / "checkpoints/orderer").iterdir()))
    shutil.rmtree(tmp_path / "qformer")
    train_orderer.main(replace(crossed, resume=True))
    assert weights(crossed) == straight


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda e: replace(e, orderer={**e.orderer, "encoder": "joint"}), "got JointEncoder"),
        (lambda e: replace(e, orderer={**e.orderer, "heads": 4}), "num_attention_heads 2 where"),
    ],
)
def test_a_qformer_that_does_not_fit_stops_the_training(
    crossed: Experiment, change: Callable[[Experiment], Experiment], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        train_orderer.main(change(crossed))
