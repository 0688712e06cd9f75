"""Feature alignment: by cosine, on the grid of the states, to a network that stays as it is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orderer.objectives import Alignment, Teacher

Save = Callable[[str], Path]


def test_it_is_the_negative_cosine_of_projections_and_features(vision_model: Save) -> None:
    teacher = Teacher(vision_model("vit"))
    alignment = Alignment(4, teacher, None)
    images, states = torch.rand(2, 3, 16, 24) * 2 - 1, torch.randn(2, 6, 4)
    found = alignment(states, images, (2, 3))
    cosines = [
        torch.cosine_similarity(alignment.projector(states)[:, i], feature, dim=-1)
        for i, feature in enumerate(teacher.last(images).flatten(2).unbind(-1))
    ]
    torch.testing.assert_close(found, -torch.stack(cosines).mean())


def test_states_that_project_onto_the_features_reach_the_least_value(vision_model: Save) -> None:
    teacher = Teacher(vision_model("vit"))
    alignment = Alignment(12, teacher, None)
    alignment.projector = torch.nn.Sequential(torch.nn.Identity())
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    states = 5 * teacher.last(images).flatten(2).mT
    torch.testing.assert_close(alignment(states, images, (2, 2)), torch.tensor(-1.0))


@pytest.mark.parametrize("size", [None, 32])
def test_grids_that_differ_are_resampled(vision_model: Save, size: int | None) -> None:
    alignment = Alignment(4, Teacher(vision_model("dinov2")), size)
    images, states = torch.rand(2, 3, 16, 24) * 2 - 1, torch.randn(2, 24, 4)
    assert -1 <= alignment(states, images, (4, 6)) <= 1


def test_gradients_reach_states_and_projector_and_no_teacher(vision_model: Save) -> None:
    alignment = Alignment(4, Teacher(vision_model("convnext")), None)
    states = torch.randn(2, 4, 4).requires_grad_()
    alignment(states, torch.rand(2, 3, 16, 16), (2, 2)).backward()
    assert states.grad is not None and states.grad.abs().sum() > 0
    assert {name.split(".")[0] for name, _ in alignment.named_parameters()} == {"projector"}
    assert all(p.grad is not None for p in alignment.parameters())
    assert not [name for name in alignment.state_dict() if "teacher" in name]
