"""The Inception network against pytorch-fid's, with the same random weights."""

from pathlib import Path

import pytest
import torch
from pytorch_fid import inception as theirs
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import Inception3

from ar.evaluation.inception import FIDInception, load_inception


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Such that activations neither vanish nor explode, with a layer for 1008 classes."""
    torch.manual_seed(0)
    network = FIDInception()
    for name, value in network.state_dict().items():
        if value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
    return network.state_dict() | {"fc.weight": torch.rand(1008, 2048), "fc.bias": torch.rand(1008)}


def test_it_sees_what_pytorch_fids_sees(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: weights)
    reference = theirs.InceptionV3().eval()
    path = tmp_path / "inception.safetensors"
    save_file({k: v for k, v in weights.items() if not k.endswith("tracked")}, path)
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference(images / 255)[0].flatten(1)
        found = load_inception(path)(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_torchvisions_own_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "imagenet.safetensors"
    save_file(Inception3(init_weights=False).state_dict(), path)
    with pytest.raises(ValueError, match=r"have unexpected keys: AuxLogits\.conv0"):
        load_inception(path)


def test_it_must_be_in_eval_mode() -> None:
    with pytest.raises(ValueError, match="FIDInception must be in eval mode"):
        FIDInception()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
