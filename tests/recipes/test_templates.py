"""The templates for launchers say what these and our command line understand."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from recipes.engine.cli import _read
from recipes.experiment import Experiment
from recipes.train_orderer import main

LAUNCH = Path(__file__).parents[2] / "recipes/configs/launch"


def test_accelerate_reads_its_template() -> None:
    config = load_config_from_file(str(LAUNCH / "accelerate.yaml"))
    assert config.num_processes == 4 and config.distributed_type.value == "MULTI_GPU"


def test_the_settings_for_sharding_are_settings() -> None:
    read = _read(main, Experiment, [f"--config={LAUNCH / 'sharded.yaml'}"])
    assert read.execution.parallel == "sharded" and read.execution.stall_seconds == 300


def test_the_command_of_the_skypilot_task_is_one_of_ours() -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    words = shlex.split(task["run"])
    place = words.index("recipes.train_orderer")
    out = words[-2]
    assert words[0].endswith("torchrun") and out == "--out=/runs/emoji"
    assert out.startswith(f"--out={next(iter(task['volumes']))}/")
    assert _read(main, Experiment, words[place + 1 :]).resume


STUBS = {
    "srun": """
        while [ "${1#--}" != "$1" ]; do echo "option $1"; shift; done
        SLURM_PROCID=1 SLURM_LOCALID=1 exec "$@"
    """,
    "python": """
        echo "python $*"
        echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT"
        exit $CODE
    """,
    "scontrol": 'if [ "$1" = show ]; then printf "one\\\\ntwo\\\\n"; else echo "$*"; fi',
}


@pytest.mark.parametrize(("code", "again"), [(75, ["requeue 12"]), (0, []), (1, [])])
def test_the_slurm_script_asks_for_another_turn_where_a_run_was_saved(
    code: int, again: list[str], tmp_path: Path
) -> None:
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "12", "SLURM_NTASKS": "4"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [LAUNCH / "slurm.sh", "train_ar", "--out=a b"],
        env={**os.environ, **slurm, "PATH": path, "CODE": str(code)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code and done.stderr == ""
    assert done.stdout.splitlines() == [
        "option --kill-on-bad-exit=0",
        "option --wait=60",
        "python -m recipes.train_ar --out=a b --resume --preempted_code=75",
        "1 1 4 one 20012",
        *again,
    ]
