"""Stage 1 trains from shards behind URLs; every other stage refuses them."""

import io
import json
import math
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data import encode_image
from recipes import evaluate, train_joint, train_orderer, write_tokens
from recipes.engine.cli import run as start
from recipes.experiment import DataSettings, Experiment

Served = Callable[[Path], str]
SMOKE = "--config=recipes/configs/smoke.yaml"


@pytest.fixture
def host(tmp_path: Path, served: Served) -> str:
    """Serves three shards of ten pairs each; one caption is too long for the smoke test's model."""
    random = np.random.default_rng(0)
    (tmp_path / "shards").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / f"shards/train-{shard:06d}.tar", "w") as tar:
            for number in range(10 * shard, 10 * shard + 10):
                image = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                text = f"number {number}" + " and more" * (200 if number == 7 else 0)
                for suffix, content in (("png", encode_image(image)), ("txt", text.encode())):
                    info = tarfile.TarInfo(f"{number}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return served(tmp_path / "shards")


def on(tiny: Experiment, out: Path, source: str) -> Experiment:
    return replace(tiny, out=out, data=DataSettings(source=(source,), train_count=None))


def losses(out: Path) -> list[float]:
    lines = (out / "logs/orderer.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_stage_1_trains_from_urls_and_goes_on_where_it_stopped(
    tiny: Experiment, host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = replace(tiny, checkpoint_every=2)
    experiment = on(tiny, tmp_path / "run", f"{host}/train-{{000000..000002}}.tar")
    train_orderer.main(experiment)
    assert (experiment.out / "orderer/model.safetensors").is_file()
    assert "train-{000000..000002}.tar: skipped: 1 caption too long" in capsys.readouterr().out
    assert len(losses(experiment.out)) == 4 and all(map(math.isfinite, losses(experiment.out)))

    longer = replace(experiment, resume=True)
    with pytest.raises(ValueError, match="pairs"):  # other shards are another run
        train_orderer.main(
            replace(longer, data=on(tiny, tmp_path, f"{host}/train-000000.tar").data)
        )
    shutil.rmtree(experiment.out / "checkpoints/orderer/step-00000004")
    train_orderer.main(longer)
    assert len(losses(experiment.out)) == 4 and all(map(math.isfinite, losses(experiment.out)))


@pytest.mark.parametrize("recipe", [write_tokens, train_joint, evaluate])
def test_every_other_stage_refuses_urls(trained: Experiment, recipe: ModuleType) -> None:
    experiment = replace(
        trained, data=DataSettings(source=("https://host/train-{0..9}.tar?key=secret",))
    )
    with pytest.raises(ValueError, match="only the training of stage 1 reads from URLs") as refused:
        recipe.main(experiment)
    assert "https://host/train-{0..9}.tar" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ['--data.source=["http://host/train-{0..1}.tar"]'],
            "data.train_count must be null, got 256",
        ),
        (["--data.source=[file:///etc/passwd]", "--data.train_count=null"], "'file:///etc/passwd'"),
        (
            ['--data.source=["http://host/{0..999999999}.tar"]', "--data.train_count=null"],
            "stands for more than 100000 shards",
        ),
        (
            ["--data.source=[http://host/a.tar]", "--data.train_count=null", "--data.workers=2"],
            "has 1 shards, fewer than its readers: 1 (processes) x 2 (workers)",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_on_the_command_line(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(SystemExit) as stopped:
        start(train_orderer.main, Experiment, [SMOKE, *arguments, f"--out={tmp_path}"])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
