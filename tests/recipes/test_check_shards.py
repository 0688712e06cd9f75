"""The list of defects, as its user sees it."""

import io
import tarfile
from pathlib import Path

import pytest

from data import write_shards
from data.scenes import scene_pairs
from recipes import check_shards
from recipes.engine.cli import run as start
from recipes.engine.cli import with_folder


def check(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        start(check_shards.main, check_shards.Config, with_folder(arguments))
    return int(ended.value.code or 0)


def test_a_good_folder_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path, "train", scene_pairs("train", 3, 16))
    start(check_shards.main, check_shards.Config, with_folder([str(tmp_path)]))
    said = capsys.readouterr()
    good = f"{tmp_path}: 3 samples with 15 captions of train are good\ndefects: 0\n"
    assert (said.err, said.out) == ("", good)


def test_a_defect_ends_with_1_and_its_key_cannot_write_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        info = tarfile.TarInfo("\x1b[2Jkey.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"a"))
    assert check(str(tmp_path)) == 1
    assert capsys.readouterr().out == "train-000000.tar\t�[2Jkey\tno image\ndefects: 1\n"


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("nowhere") == 2
    assert capsys.readouterr().err == "error: nowhere is not a local folder\n"
