"""The features that sets of images are compared in: which there are, and whose they may not be."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ConvNextConfig, ConvNextModel

from ar.evaluation import Classifier
from orderer import Orderer, complete_settings, start_orderer
from orderer.objectives import Teacher
from orderer.sequences import FixedOrder, SequenceConfig
from orderer.transformers_towers import weight_files
from orderer.weights import digest_of
from recipes import evaluate
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.feature_space import FeatureSpace, check_apart, number_of_features, parse_features
from recipes.fidelity import Fidelity, check_enough, check_fidelity, sentence
from recipes.rebuilding import Eyes, make_teacher, mean_perceptual, reconstruction

CPU = torch.device("cpu")
SMALL = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "readout_layers": 1}
SMALL |= {"image_size": 16, "patch_size": 4, "tokens": 4, "token_dim": 6}
SMALL |= {"text_width": 16, "text_heads": 2, "text_layers": 1}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small CLIP that open_clip knows by name: 8 features of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("towers")
    settings = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 64, "layers": 1},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1, "context_length": 12},
    }
    (folder / "tiny-judge.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)
    model = open_clip.create_model("tiny-judge")
    save_file(model.state_dict(), folder / "clip.safetensors")
    return f"open_clip:tiny-judge@{folder / 'clip.safetensors'}"


def pictures(number: int, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8)


def test_the_judges_network_stays_where_it_judges() -> None:
    torch.manual_seed(0)
    judge = Classifier(3).eval()
    space = FeatureSpace("judge", judge, torch.device("meta"))
    assert {x.device.type for x in space.net.parameters()} == {"meta"}
    assert {x.device.type for x in judge.parameters()} == {"cpu"}
    assert len(space.protocol()["sha256"]) == 64
    torch.manual_seed(1)
    other = FeatureSpace("judge", Classifier(3).eval(), CPU)
    assert other.sha256 != FeatureSpace("judge", judge, CPU).sha256 == space.sha256


def test_a_tower_sees_what_open_clips_own_model_sees(tower: str) -> None:
    space, images = FeatureSpace(tower, None, CPU), pictures(70)  # more than are seen at once
    model = open_clip.create_model("tiny-judge").eval()
    model.load_state_dict(load_file(tower.partition("@")[2]))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
    with torch.no_grad():
        expected = model.encode_image((images / 255 - mean) / std)
    torch.testing.assert_close(space(images), expected, atol=1e-5, rtol=1e-5)
    assert space(images).shape[1] == number_of_features(tower, "scenes") == 8
    assert space(pictures(2, 40)).shape == (2, 8)


def test_any_other_name_is_refused() -> None:
    for spec in ("clip", "open_clip:ViT-B-16", "open_clip:@a.safetensors", "inception:"):
        with pytest.raises(ValueError, match=rf"must be judge, .* in safetensors, got '{spec}'"):
            Evaluation(features=spec)
    assert parse_features("judge").path is None
    assert [number_of_features("judge", judge) for judge in ("words", "scenes")] == [128, 96]
    assert number_of_features("inception:a.safetensors", "retrieval") == 2048
    with pytest.raises(ValueError, match="open_clip has no model named 'no-such'"):
        number_of_features("open_clip:no-such@a.safetensors", "scenes")


def test_no_model_is_measured_in_its_own_features(tower: str, tmp_path: Path) -> None:
    config = complete_settings({"features": tower, **SMALL})
    orderer = start_orderer(config)
    space = FeatureSpace(tower, None, CPU)
    with pytest.raises(ValueError, match=r"no measured model was made of, got .* features tower"):
        space.check_not_of(orderer)
    renamed = tmp_path / "copy.safetensors"
    save_file(load_file(tower.partition("@")[2]), renamed, {"written": "again"})
    copied = FeatureSpace(f"open_clip:tiny-judge@{renamed}", None, CPU)
    assert copied.sha256 != space.sha256
    with pytest.raises(ValueError, match="features tower"):
        copied.check_not_of(orderer)
    space.check_not_of(start_orderer(complete_settings(SMALL)))
    without_text = {name: each for name, each in SMALL.items() if not name.startswith("text")}
    reads = start_orderer(complete_settings({"text": tower, **without_text}))
    with pytest.raises(ValueError, match="text tower"):
        space.check_not_of(reads)


def test_a_fixed_order_was_made_of_no_tower(tower: str) -> None:
    check_apart(tower, SequenceConfig())
    FeatureSpace(tower, None, CPU).check_not_of(FixedOrder(SequenceConfig()))


def test_sets_are_compared_with_their_numbers_beside(tower: str) -> None:
    fidelity = Fidelity(FeatureSpace(tower, None, CPU), pictures(40))
    found = fidelity.of(pictures(30))
    assert found["features"] == 8 and found["images"] == {"real": 40, "generated": 30}
    assert set(found) == {"frechet", "kernel", "precision", "recall", "features", "images"}
    found |= fidelity.bounds(pictures(30), pictures(100))
    assert found["images"] == {"real": 40, "generated": 30, "training": 30, "halves": [20, 20]}
    assert "30 images to 40 real ones in 8 features (halves of the real ones: " in sentence(found)
    few = Fidelity(FeatureSpace(tower, None, CPU), pictures(12)).halves()
    assert few == {"frechet_of_halves": None}


def test_images_of_mixed_sizes_are_refused(tower: str) -> None:
    fidelity = Fidelity(FeatureSpace(tower, None, CPU), pictures(40))
    with pytest.raises(ValueError, match="one size, the real ones are 16 x 16 pixels, got 8 x 8"):
        fidelity.of(pictures(30, 8))


def test_fewer_images_than_features_are_refused_before_a_network_is_read(
    tiny: Experiment, tower: str
) -> None:
    pairs = tiny.data.open_test(16)
    for tasks, said in ((("generation",), "9 generated"), (("reconstruction",), "2049 real")):
        features = tower if "generation" in tasks else "inception:none.safetensors"
        evaluation = Evaluation(tasks=(*tasks, "fidelity"), generated=8, features=features)
        asked = replace(tiny, evaluation=evaluation)
        check_fidelity(asked)
        with pytest.raises(ValueError, match=f"at least {said} images, one more than features"):
            check_enough(asked, pairs)


@pytest.fixture
def vision_model(tmp_path: Path) -> Path:
    """A folder with a network that sees."""
    config = ConvNextConfig(num_stages=2, hidden_sizes=[6, 8], depths=[1, 1])
    ConvNextModel(config).save_pretrained(tmp_path / "convnext")
    return tmp_path / "convnext"


def test_every_prefix_is_measured_by_every_eye(
    tower: str, vision_model: Path, tiny_orderer: Orderer, tmp_path: Path
) -> None:
    orderer, images, teacher = tiny_orderer.eval(), pictures(12), Teacher(vision_model)
    eyes = Eyes(space=FeatureSpace(tower, None, CPU), teacher=teacher)
    with torch.no_grad():
        found = reconstruction(images, orderer, orderer.encode(images), eyes, tmp_path)
    figures = found["reconstruction"]
    for name in ("psnr", "ssim", "perceptual", "frechet"):
        assert list(figures[name]) == ["1", "2", "4"]
    assert all(-1 <= value <= 1 for value in figures["ssim"].values())
    assert figures["fidelity"]["images"] == {"real": 12, "generated": 12}
    assert mean_perceptual(teacher, images, images) == 0


def test_a_network_that_an_orderer_learned_to_please_does_not_judge_it(
    tiny: Experiment, tiny_orderer: Orderer, vision_model: Path, tmp_path: Path
) -> None:
    assert make_teacher(tiny, tiny_orderer) is None
    folder = shutil.copytree(vision_model, tmp_path / "of another name")
    asked = replace(tiny, out=tmp_path, evaluation=Evaluation(perceptual_model=folder))
    assert make_teacher(asked, tiny_orderer) is not None
    (tmp_path / "orderer").mkdir()
    record = {"teachers": {"alignment": Teacher(vision_model).weights}}
    (tmp_path / "orderer" / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"was made with, that in .* served .* as alignment"):
        make_teacher(asked, tiny_orderer)


def test_the_network_that_an_orderer_sees_with_does_not_judge_it(
    tiny: Experiment, tiny_orderer: Orderer, vision_model: Path, tmp_path: Path
) -> None:
    orderer = copy.deepcopy(tiny_orderer)
    orderer.config.features_weights = {"sha256": digest_of(weight_files(vision_model))}
    asked = replace(tiny, out=tmp_path, evaluation=Evaluation(perceptual_model=vision_model))
    with pytest.raises(ValueError, match=r"was made with, that in .* served .* as features"):
        make_teacher(asked, orderer)


def test_an_evaluation_says_in_which_features_it_compared(
    trained: Experiment, tower: str, tmp_path: Path
) -> None:
    copied = replace(
        trained,
        out=tmp_path / "run",
        evaluation=replace(
            trained.evaluation,
            tasks=("reconstruction", "generation", "fidelity"),
            generated=12,
            features=tower,
        ),
    )
    for model in ("orderer", "ar"):
        shutil.copytree(trained.out / model, copied.out / model)
    evaluate.main(copied)
    found = json.loads((copied.out / "evaluation.json").read_text())
    assert found["protocol"]["features"]["space"].startswith("open_clip's image tower tiny-judge")
    assert len(found["protocol"]["features"]["sha256"]) == 64
    fidelity = found["results"]["separate"]["generation"]["fidelity"]
    assert fidelity["features"] == 8 and fidelity["images"]["generated"] == 12
    assert 0 <= fidelity["precision"] <= 1 and fidelity["recall_of_rebuilt"] >= 0
    rebuilt = found["results"]["separate"]["reconstruction"]
    assert list(rebuilt["frechet"]) == list(rebuilt["ssim"]) == list(rebuilt["psnr"])
