"""The page about an orderer says what it measured, and of which images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orderer import Orderer, OrdererProcessor
from recipes import explain as recipe
from recipes import explaining
from recipes.data_settings import DataSettings
from recipes.engine.pictures import heat_map
from recipes.experiment import Experiment
from recipes.explaining import Explanation, Subject, explain

DATA = DataSettings(test_count=8, unseen=None)


@pytest.fixture(scope="module")
def explanation(trained: Experiment) -> Explanation:
    orderer = Orderer.from_pretrained(trained.out / "orderer").eval()
    processor = OrdererProcessor.from_pretrained(trained.out / "orderer")
    pairs = DATA.open_test(orderer.config.image_size)
    subject = Subject(name="one", image=pairs.images[0], captions=pairs.captions[0])
    return explain(orderer, processor, pairs, [subject], draws=1, scenes=90, seed=0)


def test_an_image_is_explained_at_every_measured_prefix(explanation: Explanation) -> None:
    (one,) = explanation.images
    assert [at.k for at in one.prefixes] == [1, 2, 4, 8, 16]
    assert one.attribution.shape == (16, 3, 3)
    assert all(len(set(at.nearest)) == 3 for at in one.prefixes)


def test_its_last_prefix_is_the_decoding_of_all_tokens(
    explanation: Explanation, trained: Experiment
) -> None:
    orderer = Orderer.from_pretrained(trained.out / "orderer").eval()
    (one,) = explanation.images
    with torch.no_grad():
        whole = orderer.decode(orderer.encode(one.subject.image[None]))[0]
    levels = ((whole + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(one.prefixes[-1].rebuilt, levels)


def test_every_prefix_of_the_split_has_its_figures(explanation: Explanation) -> None:
    assert list(explanation.psnr) == list(explanation.recall) == list(range(1, 17))
    assert explanation.by_each.shape == (16, 16) and explanation.by_before.shape == (16,)
    assert explanation.factors is not None and len(explanation.factors) == 6


@pytest.fixture
def run(
    trained: Experiment,
    explanation: Explanation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Writes the page; the factors, which take longest, are those that were read before."""

    def read(**settings: Any) -> str:
        out = tmp_path / "page.html"
        config = {"models": trained.out, "data": DATA, "draws": 1, "probe_scenes": 90, "out": out}
        recipe.main(recipe.Config(**{**config, **settings}))
        return out.read_text()

    monkeypatch.setattr(explaining, "factors_read", lambda *_: explanation.factors)
    return read


def test_the_page_needs_nothing_else(run: Callable[..., str]) -> None:
    page = run(shown=2)
    assert "val-0000000" in page and "val-0000001" in page and "val-0000002" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "readable from, tokens" in page


def test_a_file_of_ones_own_is_explained(run: Callable[..., str], tmp_path: Path) -> None:
    mine = tmp_path / "mine<b>.png"
    Image.fromarray(np.full((50, 40, 3), 90, np.uint8)).save(mine)
    page = run(images=(mine,))
    assert "mine&lt;b&gt;.png, from its first tokens" in page and "val-0000000" not in page


def test_a_file_that_is_no_image_is_refused(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no")
    with pytest.raises(ValueError, match=r"no\.png cannot be explained: not an image"):
        run(images=(tmp_path / "no.png",))


def test_a_heat_map_of_no_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"matrix of numbers, got shape \(3,\)"):
        heat_map(np.zeros(3), tmp_path / "x.png", x_label="", y_label="", legend="")
