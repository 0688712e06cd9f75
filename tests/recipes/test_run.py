import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.engine.processes import average_gradients, seed_everything
from recipes.engine.run import STOPS, Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    if torch.accelerator.is_available():
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def go(out: Path, steps: range, total: int = 10, log_every: int = 2) -> None:
    with Run(out, "toy", total, log_every, steps.start, samples_per_step=4) as run:
        for step in steps:
            run.log(step, {"loss": torch.tensor(float(step)), "rate": 0.5})


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "logs/toy.jsonl").read_text().splitlines()]


def status(out: Path) -> dict[str, object]:
    return json.loads((out / "logs/toy.status.json").read_text())


def test_the_log_has_a_line_every_few_steps_and_one_for_the_last(tmp_path):
    go(tmp_path, range(10), log_every=4)
    assert [line["step"] for line in lines(tmp_path)] == [0, 4, 8, 9]
    assert all(line["loss"] == line["step"] and line["rate"] == 0.5 for line in lines(tmp_path))
    assert all(line["samples_per_second"] > 0 and line["seconds"] > 0 for line in lines(tmp_path))


def test_tensorboard_has_the_same_values(tmp_path):
    go(tmp_path, range(10))
    events = EventAccumulator(str(tmp_path / "logs/toy")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(s, s) for s in (0, 2, 4, 6, 8, 9)]


def test_tensorboard_has_what_was_logged_before_a_checkpoint(tmp_path):
    with Run(tmp_path, "toy", 10, 1) as run:
        run.log(0, {"loss": 0.5})
        run.sync()
        events = EventAccumulator(str(tmp_path / "logs/toy")).Reload().Scalars("loss")
    assert [event.value for event in events] == [0.5]


def test_a_run_knows_what_it_has_recorded(tmp_path):
    with Run(tmp_path, "toy", 10, 1) as run:
        run.log(0, {"loss": 0.5})
        run.record(1, {"validation": 0.5})
        places = [(0, "loss"), (1, "validation"), (0, "validation"), (2, "validation")]
        assert [run.has_recorded(*place) for place in places] == [True, True, False, False]


def test_two_runs_of_one_name_in_one_folder_are_refused_until_the_first_ends(tmp_path, forked):
    def waits() -> None:
        with Run(tmp_path, "toy", 10, 1) as run:
            run.log(0, {})
            (tmp_path / "begun").touch()
            time.sleep(600)

    (first,) = forked.start(waits)
    while not (tmp_path / "begun").exists():
        assert first.is_alive()
        time.sleep(0.01)
    go(tmp_path / "other", range(10))
    with Run(tmp_path, "another", 10, 1):
        pass
    before = (tmp_path / "logs/toy.jsonl").read_bytes()
    sentence = f"a training toy is under way in {tmp_path}: wait for its end, or give another out"
    with pytest.raises(ValueError, match=sentence), Run(tmp_path, "toy", 10, 1):
        pass
    assert (tmp_path / "logs/toy.jsonl").read_bytes() == before
    assert status(tmp_path)["status"] == "running"
    first.kill()
    assert forked.finish([first]) == [-signal.SIGKILL]
    go(tmp_path, range(10))
    go(tmp_path, range(10))


def test_a_worker_that_outlives_a_killed_run_does_not_hold_its_lock(tmp_path, forked):
    def reads_ahead():
        with Run(tmp_path, "toy", 10, 1):
            worker = os.fork()
            if worker == 0:
                time.sleep(600)
            (tmp_path / "worker").write_text(str(worker))
            time.sleep(600)

    (first,) = forked.start(reads_ahead)
    while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
        assert first.is_alive()
        time.sleep(0.01)
    first.kill()
    assert forked.finish([first]) == [-signal.SIGKILL]
    try:
        go(tmp_path, range(10))
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_a_resumed_run_drops_the_lines_that_it_will_write_again(tmp_path):
    go(tmp_path, range(7))
    with (tmp_path / "logs/toy.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    go(tmp_path, range(3, 10))
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4, 6, 8, 9]


def test_a_fresh_run_starts_a_fresh_log(tmp_path):
    go(tmp_path, range(10))
    go(tmp_path, range(2))
    assert [line["step"] for line in lines(tmp_path)] == [0]


def test_a_value_that_is_not_finite_is_null_in_the_log(tmp_path):
    with Run(tmp_path, "toy", 1, 1) as run:
        run.log(0, {"loss": float("nan")})
    assert lines(tmp_path)[0]["loss"] is None


def test_a_run_that_ends_is_finished(tmp_path):
    go(tmp_path, range(10))
    assert (status(tmp_path)["status"], status(tmp_path)["steps_done"]) == ("finished", 10)


def test_a_run_that_breaks_is_failed(tmp_path):
    with pytest.raises(RuntimeError), Run(tmp_path, "toy", 10, 1):
        raise RuntimeError("out of luck")
    assert status(tmp_path)["status"] == "failed"
    assert status(tmp_path)["error"] == "RuntimeError: out of luck"


def test_a_run_under_way_says_so(tmp_path):
    with Run(tmp_path, "toy", 10, 1):
        assert status(tmp_path)["status"] == "running"


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_asks_for_a_stop_and_the_run_is_preempted(number, tmp_path):
    before = signal.getsignal(number)
    with Run(tmp_path, "toy", 10, 1) as run:
        run.log(0, {})
        assert not run.stop_requested
        os.kill(os.getpid(), number)
        assert not run.stop_requested  # the same answer until the step's end
        run.log(1, {})
        assert run.stop_requested
    assert signal.getsignal(number) is before
    assert (status(tmp_path)["status"], status(tmp_path)["steps_done"]) == ("preempted", 2)


def test_a_signal_that_comes_while_the_processes_talk_is_heard_a_step_later(tmp_path, monkeypatch):
    with Run(tmp_path, "toy", 10, 1) as run:

        def talk(here: torch.Tensor, how: str) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGTERM)
            return here

        with monkeypatch.context() as patched:
            patched.setattr(Run, "world", 2)
            patched.setattr(run.accelerator, "reduce", talk)
            assert not run.stop_requested
            run.log(0, {})
            assert run.stop_requested


def test_a_signal_after_the_last_step_changes_nothing(tmp_path):
    with Run(tmp_path, "toy", 1, 1) as run:
        run.log(0, {})
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.stop_requested
    assert status(tmp_path)["status"] == "finished"


def test_a_second_interrupt_does_not_wait(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run(tmp_path, "toy", 10, 1):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert status(tmp_path)["status"] == "failed"


def test_seconds_count_the_parts_before_a_resume(tmp_path):
    assert 100 <= Run(tmp_path, "toy", 10, 1, earlier_seconds=100.0).seconds < 200


@pytest.mark.parametrize(
    ("steps", "log_every", "sentence"),
    [(0, 1, "steps must be at least 1, got 0"), (1, 0, "log_every must be at least 1, got 0")],
)
def test_an_impossible_run_is_refused(steps, log_every, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        Run(tmp_path, "toy", steps, log_every)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_noise_is_a_function_of_seed_rank_and_step():
    seen = set()
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        seed_everything(*key)
        first = draws()
        seed_everything(*key)
        assert draws() == first
        seen |= set(first)
    assert len(seen) == 12


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got seed -1"):
        seed_everything(-1, 0)


def test_on_one_process_gradients_stay_as_they_are():
    parameter = torch.nn.Parameter(torch.ones(2))
    (parameter * 3).sum().backward()
    average_gradients([parameter])
    assert parameter.grad is not None and parameter.grad.tolist() == [3, 3]


TWO = """
import os, signal, sys
from pathlib import Path
import torch
from recipes.engine.processes import average_gradients
from recipes.engine.run import Run

torch.manual_seed(0)
batch = torch.randn(8, 3, dtype=torch.float64)
weight, lonely, unused = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(3))
with Run(Path(sys.argv[1]), "toy", 10, 1) as run:
    assert run.world == 2
    ((batch @ weight) ** 2).mean().backward()
    expected, weight.grad = weight.grad, None
    ((batch[run.rank::2] @ weight) ** 2).mean().backward()
    if run.rank == 1:
        lonely.sum().backward()
    average_gradients([weight, lonely, unused])
    torch.testing.assert_close(weight.grad, expected, rtol=1e-14, atol=0)
    assert lonely.grad.tolist() == [0.5] * 3 and unused.grad is None
    for step in range(10):
        if (run.rank, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        run.log(step, {"loss": float(run.rank)})
        if run.stop_requested:
            break
    assert step == 2
"""


def test_two_processes_share_means_gradients_and_the_wish_to_stop(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert [line["loss"] for line in lines(tmp_path)] == [0.5, 0.5, 0.5]
    assert status(tmp_path)["status"] == "preempted"


def test_a_log_on_a_full_disk_is_named_and_the_run_says_that_it_failed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, Run(tmp_path, "toy", 3, 1) as run:
        run.log(0, {"loss": 1.0})
        run._close_log()
        run._file = Path("/dev/full").open("a")  # noqa: SIM115  (the run closes it)
        run.log(1, {"loss": 1.0})
    assert raised.value.filename == str(tmp_path / "logs/toy.jsonl")
    status = json.loads((tmp_path / "logs/toy.status.json").read_text())
    assert status["status"] == "failed" and "No space left" in status["error"]
