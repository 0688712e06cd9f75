"""Judges are trained once for the same images, and again for others."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ar.evaluation import Classifier, train_classifier
from recipes.trained_once import trained_once


def judge(folder: Path, images: Tensor, trainings: list[int], steps: int = 2) -> nn.Module:
    def train() -> Classifier:
        trainings.append(steps)
        return train_classifier(images, torch.arange(6) % 2, 2, steps=steps)

    return trained_once(folder, partial(Classifier, 2), train, on=(images, steps))


def test_the_same_training_is_read_and_judges_the_same(tmp_path: Path) -> None:
    images, trainings = torch.randint(256, (6, 3, 16, 16)).byte(), list[int]()
    first, second = (judge(tmp_path, images, trainings) for _ in range(2))
    assert trainings == [2] and not second.training
    never_kept = train_classifier(images, torch.arange(6) % 2, 2, steps=2)
    with torch.no_grad():
        for net in (first, second):
            torch.testing.assert_close(net(images), never_kept(images), rtol=0, atol=0)


def test_one_other_pixel_or_step_is_another_training(tmp_path: Path) -> None:
    images, trainings = torch.zeros(6, 3, 16, 16).byte(), list[int]()
    judge(tmp_path, images, trainings)
    judge(tmp_path, images, trainings, steps=3)
    images[0, 0, 0, 0] = 1
    judge(tmp_path, images, trainings)
    assert trainings == [2, 3, 2]
    assert len(list(tmp_path.glob("classifier-*.safetensors"))) == 3
