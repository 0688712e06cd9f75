"""Stage 1 with terms of other networks: resumed to the same bits, saved apart, bound by hash."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetModel

from orderer import Orderer
from orderer.objectives import Teacher
from recipes import train_joint, train_orderer
from recipes.engine.run import Run
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision network with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("network")
    config = ResNetConfig(hidden_sizes=[8, 12], depths=[1, 1], embedding_size=8, layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def everything(tiny: Experiment, network: Path) -> Experiment:
    """All terms at once, the opponent from the second step on, balanced."""
    training = tiny.train_orderer
    objectives = replace(
        training.objectives,
        perceptual=0.5,
        perceptual_model=network,
        adversarial=0.1,
        adversarial_from=1,
        alignment=0.5,
        alignment_model=network,
        alignment_size=24,
        balanced=True,
    )
    return replace(tiny, train_orderer=replace(training, objectives=objectives))


@pytest.fixture(scope="module")
def done(everything: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    experiment = replace(everything, out=tmp_path_factory.mktemp("done") / "run")
    train_orderer.main(experiment)
    return experiment


def lines(out: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (out / "logs/orderer.jsonl").read_text().splitlines()))


def test_a_killed_training_goes_on_to_the_same_bits(
    everything: Experiment, done: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def die(self: Run, step: int, values: Any) -> None:
        log(self, step, values)
        if step == 2:
            raise KeyboardInterrupt

    killed = replace(everything, out=tmp_path, checkpoint_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "log", die)
        train_orderer.main(killed)
    train_orderer.main(replace(killed, resume=True))
    for file in ("orderer/model.safetensors", "discriminator.safetensors"):
        assert (tmp_path / file).read_bytes() == (done.out / file).read_bytes()
    for name in ("orderer", "discriminator"):
        found, expected = (
            load_file(out / f"checkpoints/orderer/step-00000004/{name}.safetensors")
            for out in (tmp_path, done.out)
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert {"balance.pulls", "alignment.projector.0.weight"} <= set(
        load_file(tmp_path / "checkpoints/orderer/step-00000004/orderer.safetensors")
    )


def test_each_term_is_logged_with_its_gradient_norm(done: Experiment) -> None:
    first, *later = lines(done.out)
    assert "adversarial" not in first
    for line in later:
        for term in ("reconstruction", "perceptual", "adversarial", "alignment"):
            assert line[term] is not None and line[f"gradient_norm/{term}"] > 0
        assert line["discriminator"] > 0


def test_the_record_says_which_networks_were_pleased(done: Experiment, network: Path) -> None:
    record = json.loads((done.out / "orderer/training.json").read_text())
    weights = Teacher(network).weights
    assert record["teachers"] == {"perceptual": weights, "alignment": weights}


def test_the_saved_orderer_holds_nothing_of_the_other_networks(done: Experiment) -> None:
    saved = set(load_file(done.out / "orderer/model.safetensors"))
    assert saved == set(Orderer(done.orderer_config()).state_dict())
    assert "real_average" in load_file(done.out / "discriminator.safetensors")


def test_a_network_with_other_weights_is_refused_on_resume(done: Experiment, network: Path) -> None:
    file = network / "model.safetensors"
    written = file.read_bytes()
    save_file({name: value + 1 for name, value in load_file(file).items()}, file, {"format": "pt"})
    try:
        with pytest.raises(ValueError, match="other settings: weights of perceptual_model was"):
            train_orderer.main(replace(done, resume=True))
    finally:
        file.write_bytes(written)


def test_stage_three_goes_on_without_an_opponent(
    trained: Experiment, everything: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(trained.out, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/joint")
    joint = replace(everything.train_joint, steps=2, rewarm=1)
    train_joint.main(replace(everything, out=tmp_path / "run", train_joint=joint))
    lines = map(json.loads, (tmp_path / "run/logs/joint.jsonl").read_text().splitlines())
    last = [line for line in lines if "loss" in line][-1]
    assert last["perceptual"] > 0 and "adversarial" not in last


@pytest.mark.long
def test_two_processes_have_the_opponent_of_one(
    program: Any, everything: Experiment, tmp_path: Path
) -> None:
    """Without noise, which differs from process to process; rounding is enlarged by Muon."""
    objectives = replace(everything.train_orderer.objectives, full_share=1.0)
    noiseless = replace(
        everything,
        precision="fp32",
        orderer={**everything.orderer, "token_noise": 0.0},
        train_orderer=replace(everything.train_orderer, objectives=objectives),
    )
    train_orderer.main(replace(noiseless, out=tmp_path / "one"))
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(plain_settings(replace(noiseless, out=tmp_path / "two"))))
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    found = program(*launch, "recipes.train_orderer", "--config", config)
    assert found.returncode == 0, found.stderr
    one, two = (load_file(tmp_path / name / "discriminator.safetensors") for name in ("one", "two"))
    for average in ("real_average", "rebuilt_average"):
        assert one[average].item() == pytest.approx(two[average].item(), rel=1e-3)
    pulls = [
        load_file(tmp_path / name / "checkpoints/orderer/step-00000004/orderer.safetensors")
        for name in ("one", "two")
    ]
    torch.testing.assert_close(*(each["balance.pulls"] for each in pulls), rtol=1e-2, atol=1e-6)
