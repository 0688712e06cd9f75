"""Recipes started as programs: their exit codes, several at once, and stops handed on."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from recipes.engine import launch as launching
from recipes.engine.launch import launch
from recipes.engine.processes import GONE, check_alone, check_launch


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `recipes.trial` is what a test writes to `trial.py`."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recipes" / "trial.py"


def test_the_exit_code_is_the_programs(recipe: Path) -> None:
    recipe.write_text("import sys; sys.exit(int(sys.argv[1]))")
    assert [launch("trial", [code]) for code in ("0", "2")] == [0, 2]


def test_several_processes_find_each_other(recipe: Path) -> None:
    recipe.write_text(
        "import torch, pathlib, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.tensor(1.0 + dist.get_rank())\n"
        "dist.all_reduce(x)\n"
        "pathlib.Path(f'found-{dist.get_rank()}').write_text(str(x.item()))\n"
        "dist.barrier()\n"  # leaving while the other still talks can abort it
        "dist.destroy_process_group()\n"
    )
    assert launch("trial", [], processes=2) == 0
    assert [Path(f"found-{rank}").read_text() for rank in (0, 1)] == ["3.0", "3.0"]


def test_one_that_fails_ends_the_other(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE_SECONDS", 1.0)
    recipe.write_text(
        "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(3)\ntime.sleep(600)\n"
    )
    began = time.monotonic()
    assert launch("trial", [], processes=2) == 3
    assert time.monotonic() - began < 60


def test_what_the_others_know_is_still_said(
    recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(
        "import os, pathlib, sys, time\n"
        "if os.environ['RANK'] == '1': sys.exit('error: only the second knows')\n"
        "time.sleep(1)\n"
        "pathlib.Path('written').touch()\n"
    )
    assert launch("trial", [], processes=2) == 1
    assert Path("written").exists()
    assert capfd.readouterr().err == "error: only the second knows\n"


def test_who_is_gone_says_why_itself(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As trainings do: the first waits for the second, which refuses its input."""
    recipe.write_text(
        "import sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "if dist.get_rank() == 1: sys.exit('error: this shard is damaged')\n"
        "try: dist.all_reduce(torch.zeros(1))\n"
        f"except RuntimeError: sys.exit({GONE})\n"
    )
    assert launch("trial", [], processes=2) == 1
    assert "error: this shard is damaged\n" in capfd.readouterr().err


def test_what_all_know_is_said_once(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("import sys; print('error: no', file=sys.stderr); sys.exit(2)")
    assert launch("trial", [], processes=2) == 2
    assert capfd.readouterr().err == "error: no\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_is_handed_on_and_waited_for(recipe: Path, number: signal.Signals) -> None:
    recipe.write_text(
        "import os, pathlib, signal, time\n"
        "rank = os.environ['RANK']\n"
        "def save(*_): pathlib.Path(f'saved-{rank}').touch(); raise SystemExit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path(f'ready-{rank}').touch()\n"
        "time.sleep(600)\n"
    )

    def stop() -> None:
        patience = time.monotonic() + 60
        while time.monotonic() < patience and len(list(Path().glob("ready-?"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    assert launch("trial", [], processes=2) == 128 + number
    assert Path("saved-0").exists() and Path("saved-1").exists()


def test_only_the_first_process_speaks(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe.write_text("import os; print('rank', os.environ['RANK'])")
    assert launch("trial", [], processes=2) == 0
    assert capfd.readouterr().out == "rank 0\n"


def started_by_accelerate(*options: str) -> dict[str, str]:
    """What accelerate's launcher tells the one process that it starts on a CPU."""
    arguments = launch_command_parser().parse_args(["--cpu", *options, "program.py"])
    return prepare_simple_launcher_cmd_env(_validate_launch_command(arguments)[0])[1]


def test_one_process_where_two_were_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_launch(started_by_accelerate("--num_processes=1"))
    with pytest.raises(ValueError, match="accelerate launch --cpu starts one process"):
        check_launch(started_by_accelerate("--num_processes=2"))


def test_what_several_processes_would_each_do_alone_is_refused() -> None:
    check_alone({})
    check_alone({"WORLD_SIZE": "1"})
    with pytest.raises(ValueError, match=r"runs on one process, .*, got WORLD_SIZE=2"):
        check_alone({"WORLD_SIZE": "2"})


def test_tasks_that_know_nothing_of_each_other_are_told() -> None:
    alone = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    with pytest.raises(ValueError, match="srun started 2 tasks, and nothing says"):
        check_launch(alone)
    check_launch({**alone, "WORLD_SIZE": "2"})
    check_launch({**alone, "SLURM_STEP_NUM_TASKS": "1"})
