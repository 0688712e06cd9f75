"""Converting weights: the same tensors under the names of the model, and nothing but tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recipes.convert_weights import Conversion, main, named
from recipes.engine.cli import run as start

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3)}


def convert(folder: Path, content: Any) -> dict[str, torch.Tensor]:
    torch.save(content, folder / "in.pt")
    main(Conversion(source=folder / "in.pt", target=folder / "out.safetensors"))
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}},
    ],
)
def test_the_tensors_are_the_same_however_they_were_wrapped(content: Any, tmp_path: Path) -> None:
    found = convert(tmp_path, content)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


class Code:
    def __reduce__(self) -> Any:
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({**WEIGHTS, "epoch": 3}, "holds 'epoch', which is int, no tensor"),
        ([1, 2], "holds no state dict, but list"),
        ({"x": Code()}, "holds more than tensors"),
    ],
)
def test_what_is_no_tensor_is_refused(
    content: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        convert(tmp_path, content)
    assert not (tmp_path / "out.safetensors").exists()
    assert "this ran" not in capsys.readouterr().out


def test_it_is_started_with_two_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(WEIGHTS, tmp_path / "in.bin")
    words = named([str(tmp_path / "in.bin"), str(tmp_path / "out.safetensors")])
    start(main, Conversion, words)
    assert "2 tensors" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        start(main, Conversion, words)
    assert "out.safetensors is there already" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["hello\n", "a,b\n1,2\n", "<html></html>", "{}", "0"])
def test_a_file_that_is_no_pickle_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "in.pt").write_text(text)
    with pytest.raises(ValueError, match=r"in\.pt holds more than tensors, or none: "):
        main(Conversion(source=tmp_path / "in.pt", target=tmp_path / "out.safetensors"))
