"""A tuned decoder draws other images from the same tokens, and nothing else is another."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ar import ARModel
from data import in_memory
from orderer import Objectives, Orderer
from orderer.sequences import load_sequence
from recipes import fit_order, tune_decoder
from recipes.experiment import Experiment
from recipes.training_record import check_set_apart, read_record, write_record
from recipes.training_settings import DecoderTuning


@pytest.fixture(scope="module")
def tuned(trained: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The tiny experiment after stages 1 and 2, and some steps of its decoder."""
    out = tmp_path_factory.mktemp("tuned")
    for name in ("orderer", "ar"):
        shutil.copytree(trained.out / name, out / name)
    experiment = replace(trained, out=out, tune_decoder=DecoderTuning(steps=6, batch_size=16))
    tune_decoder.main(experiment)
    return experiment


def test_only_the_decoder_is_another(tuned: Experiment) -> None:
    before, after = (
        Orderer.from_pretrained(folder / "orderer") for folder in (tuned.out, tuned.out / "tuned")
    )
    own = after.state_dict()
    changed = {name for name, tensor in before.state_dict().items() if not tensor.equal(own[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    images = torch.randint(256, (3, 3, *[before.config.image_size] * 2), dtype=torch.uint8)
    tokens = before.encode(images)
    assert torch.equal(after.encode(images), tokens)
    assert not torch.allclose(after.decode(tokens), before.decode(tokens), atol=1e-3)


def test_what_was_made_for_the_tokens_is_still_of_them(tuned: Experiment) -> None:
    orderer = Orderer.from_pretrained(tuned.out / "tuned/orderer")
    ARModel.from_pretrained(tuned.out / "ar").check_orderer(orderer.encoding_hash())
    ARModel.from_pretrained(tuned.out / "tuned/ar").check_orderer(orderer.encoding_hash())
    assert (
        orderer.embedding_hash() == Orderer.from_pretrained(tuned.out / "orderer").embedding_hash()
    )


def test_the_record_says_both_trainings(tuned: Experiment) -> None:
    record, before = (read_record(tuned.out / name) for name in ("tuned/orderer", "orderer"))
    assert record is not None and before is not None
    assert record["settings"] == before["settings"]
    assert record["decoder"]["settings"]["tune_decoder"]["steps"] == 6


def test_pairs_that_the_decoder_saw_are_not_set_apart(tuned: Experiment, tmp_path: Path) -> None:
    data = replace(tuned.data, test="tuning", unseen=None, tuning_count=8)
    record = read_record(tuned.out / "tuned/orderer")
    assert record is not None
    record["settings"]["data"]["tuning_count"] = 8
    record["pairs"] = data.open_train(36).fingerprint
    write_record(tmp_path, record)
    with pytest.raises(ValueError, match=r"data\.tuning_count was 0, got 8$"):
        check_set_apart(replace(tuned, data=data), tmp_path, 36)
    del record["decoder"]
    write_record(tmp_path, record)
    check_set_apart(replace(tuned, data=data), tmp_path, 36)


def test_the_log_has_both_sides_of_the_contest(tuned: Experiment) -> None:
    lines = map(json.loads, (tuned.out / "logs/decoder.jsonl").read_text().splitlines())
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 6
    assert all({"reconstruction", "adversarial", "discriminator"} <= line.keys() for line in steps)
    assert steps[-1]["discriminator"] < steps[0]["discriminator"]  # it learns to tell them apart


def test_a_fixed_order_is_given_a_decoder(tuned: Experiment, tmp_path: Path) -> None:
    fixed = replace(tuned, out=tmp_path, order={"order": "hilbert"})
    fit_order.main(fixed)
    tune_decoder.main(fixed)
    before, after = (load_sequence(tmp_path / name) for name in ("orderer", "tuned/orderer"))
    assert before.encoding_hash() == after.encoding_hash()
    images = fixed.data.open_test(before.config.image_size)
    tokens = before.encode(in_memory(images, before.config.image_size, max_skipped=0.0).images)
    assert not torch.allclose(after.decode(tokens), before.decode(tokens), atol=1e-3)
    tune_decoder.main(replace(fixed, out=tmp_path / "tuned"))  # goes on with that decoder
    assert not (tmp_path / "tuned/tuned/ar").exists()


@pytest.mark.parametrize(
    ("objectives", "sentence"),
    [
        (Objectives(adversarial=0.1, kl=0.0), "contrastive is none: its weight must be 0, got 1"),
        (Objectives(contrastive=0.0, kl=0.0), "adversarial must be above 0, got 0"),
    ],
)
def test_a_tuning_of_what_stays_is_refused(objectives: Objectives, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DecoderTuning(objectives=objectives)
