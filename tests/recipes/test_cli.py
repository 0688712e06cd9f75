"""Every mistake on the command line ends in one sentence."""

import errno
import resource
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file

from recipes.engine.cli import run, with_words
from recipes.engine.optim import Schedule
from recipes.engine.processes import GONE
from recipes.engine.results import write_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 8
    """How wide it is, at least 1."""
    kind: Literal["joint", "cross"] = "joint"
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path
    """Where the pairs are."""
    names: tuple[str, ...] = ("a", "b")
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None
    resume: bool = False
    inner: Inner = field(default_factory=Inner)
    narrow: Inner = Inner(width=2)

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be above 0, got {self.clip}")


def read(*argv: str) -> Config:
    configs: list[Config] = []
    run(lambda config: configs.append(config), Config, argv)
    return configs[0]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str, main=lambda config: None) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(main, Config, argv)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1
    return said


def test_defaults_stand_where_nothing_is_given():
    assert read("--data=d") == Config(data=Path("d"))


def test_types_are_kept(tmp_path):
    text = "data: d\nnames: [x, y, z]\nclip: 1\nbetas: [0, 1]\ninner: {rate: 1e-3, kind: cross}\n"
    config = read("--config", write(tmp_path / "a.yaml", text))
    inner = Inner(rate=1e-3, kind="cross")
    expected = Config(
        data=Path("d"), names=("x", "y", "z"), clip=1.0, betas=(0.0, 1.0), inner=inner
    )
    assert config == expected
    assert isinstance(config.clip, float)
    assert isinstance(config.names, tuple)


def test_a_later_file_wins_and_the_command_line_wins_over_both(tmp_path):
    first = write(tmp_path / "a.yaml", "data: d\ninner:\n  width: 3\n  rate: 0.1\n")
    second = write(tmp_path / "b.yaml", "inner:\n  width: 4\n")
    assert read(f"--config={first}", f"--config={second}").inner == Inner(width=4, rate=0.1)
    assert read("--config", first, "--config", second, "--inner.width", "5").inner.width == 5


def test_one_key_of_a_nested_default_leaves_its_others_alone():
    assert read("--data=d", "--narrow.rate=1").narrow == Inner(width=2, rate=1.0)


@pytest.mark.parametrize(
    ("argv", "resume"),
    [
        (["--resume"], True),
        (["--resume", "--clip=1"], True),
        (["--resume=false"], False),
        (["--resume", "true"], True),
    ],
)
def test_a_bare_switch_means_true(argv, resume):
    assert read("--data=d", *argv).resume is resume


def test_a_value_may_be_called_like_a_switch():
    assert read("--data", "resume", "--clip=1").data == Path("resume")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--zzz=3", "unrecognized arguments: --zzz=3"),
        ("--reusme=1", "unrecognized arguments: --reusme=1; did you mean --resume?"),
        ("--inner.widht=3", "unrecognized arguments: --inner.widht=3; did you mean --inner.width?"),
        ("--inner.wid=3", "unrecognized arguments: --inner.wid=3; did you mean --inner.width?"),
        ("stray", "unrecognized arguments: stray"),
        ("--inner.width=wide", "inner.width must be int, got wide"),
        ("--inner.width=1.5", "inner.width must be int, got 1.5"),
        ("--inner.width=0", "width must be at least 1, got 0"),
        ("--inner.kind=both", "inner.kind must be one of joint, cross, got both"),
        ("--clip=x", "clip must be float | null, got x"),
        ("--clip=0", "clip must be above 0, got 0.0"),
        ("--resume=maybe", "resume must be bool, got maybe"),
        ("--names=3", "names must be a list in brackets, each str, got 3"),
        ("--betas=[1]", "betas must be a list of 2 in brackets, each float, got [1]"),
        ("--config=no.yaml", "there is no config file no.yaml"),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, sentence, capsys):
    assert refusal(capsys, "--data=d", argument) == f"error: {sentence}\n"


def test_a_missing_value_is_refused(capsys):
    assert "required: data" in refusal(capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("widht: 7", "unknown key widht"),
        ("inner:\n  widht: 7", "unknown key inner.widht; did you mean width?"),
        ("inner:\n  width: seven", "inner.width must be int, got seven"),
        ("inner:\n  width: -7", "width must be at least 1, got -7"),
        ("inner: 3", "inner must hold keys and values, got 3"),
        ("- 1\n- 2", "the file must hold keys and values, got [1, 2]"),
        ("inner: [\n x: :\n", "line 2: "),
        ("data: !!python/object/apply:os.getcwd []", "line 1: could not determine a constructor"),
    ],
)
def test_a_wrong_file_is_refused(text, sentence, tmp_path, capsys):
    path = write(tmp_path / "wrong.yaml", text)
    assert sentence in refusal(capsys, "--data=d", "--config", path)


BOMB = "inner: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "must hold at most 100000 values, got "),
        ("[" * 100_000, "cannot be read: maximum recursion depth exceeded"),
        ("inner: &a [*a]", "cannot be read: maximum recursion depth exceeded"),
        ("inner: {width: " + "9" * 5000 + "}", "Exceeds the limit (4300 digits)"),
        ("? [1, 2]\n: 3", "found unhashable key"),
        ("\x01", "cannot be read: unacceptable character #x0001"),
    ],
    ids=["bomb", "deep", "itself", "digits", "key", "control"],
)
def test_a_hostile_file_is_refused_at_once(text, sentence, tmp_path, capsys):
    path = write(tmp_path / "hostile.yaml", text)
    began = time.monotonic()
    assert sentence in refusal(capsys, "--data=d", "--config", path)
    assert time.monotonic() - began < 5


def test_a_refusal_by_our_code_is_one_sentence(capsys):
    said = refusal(capsys, "--data=d", main=lambda config: Schedule([], 0, 0))
    assert said == "error: steps must be at least 1, got 0\n"


def test_an_error_of_the_disk_is_one_sentence(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    said = refusal(capsys, "--data=d", main=lambda config: write_json(file / "a.json", {}))
    assert str(file) in said


def test_a_full_disk_ends_with_1(capsys):
    def fill(config: Config) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "shards/a.tar")

    with pytest.raises(SystemExit) as stopped:
        run(fill, Config, ["--data=here"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: No space left on device: shards/a.tar\n"


def test_a_process_that_is_gone_ends_with_3(capsys):
    def wait(config: Config) -> None:
        raise RuntimeError("[/src/gloo/transport/tcp/pair.cc:553] Connection closed by peer")

    with pytest.raises(SystemExit) as stopped:
        run(wait, Config, ["--data=here"])
    assert stopped.value.code == GONE == 3
    assert capsys.readouterr().err.startswith(
        "error: a process that trains with this one is gone or stalled: [/src/gloo/"
    )


def test_no_room_for_safetensors_ends_with_1(capsys, tmp_path):
    def main(config: Config) -> None:
        save_file({"w": torch.zeros(20_000)}, tmp_path / "model.safetensors")

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(SystemExit) as stopped:
            run(main, Config, ["--data=here"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stopped.value.code == 1
    assert "File too large (os error 27)" in capsys.readouterr().err


def test_words_may_hold_what_yaml_reads_otherwise():
    assert with_words(["a,b", "c: d", "--x=1"], "names") == ["--x=1", '--names=["a,b", "c: d"]']
    assert with_words(["--x=1"], "names") == ["--x=1"]


def test_an_error_inside_a_library_keeps_its_traceback():
    with pytest.raises(ValueError, match="empty parameter list"):
        run(lambda config: torch.optim.AdamW([]), Config, ["--data=d"])


def test_an_interrupt_ends_with_130(capsys):
    def main(config: Config) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(main, Config, ["--data=d"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_help_shows_the_docstrings(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(print, Config, ["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "How wide it is, at least 1." in said and "Where the pairs are." in said


def test_a_printed_config_reads_back_the_same(tmp_path, capsys):
    with pytest.raises(SystemExit):
        read("--data=d", "--inner.width=3", "--names=[q]", "--print_config")
    printed = write(tmp_path / "a.yaml", capsys.readouterr().out)
    assert read("--config", printed) == Config(data=Path("d"), inner=Inner(width=3), names=("q",))
