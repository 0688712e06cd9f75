"""Result files that say where their numbers come from."""

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .files import JSON, replace_file

PACKAGES = (
    "transformers",
    "open_clip_torch",
    "webdataset",
    "accelerate",
    "datasets",
    "numpy",
    "sacrebleu",
)


def provenance() -> dict[str, JSON]:
    """Commit, versions, hardware, command and date of this very process.

    The commit is null outside a repository and ends in "+changes" if the tree differs from it.
    """
    # Here, because pages of results are read without torch, which takes seconds to import.
    import torch

    from .fast_matmul import is_fast_matmul

    return {
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
            "torch": torch.__version__,  # says which build it is, the package's own does not
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "fp32_matmul": "onednn" if is_fast_matmul() else "torch",
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, data: Mapping[str, JSON]) -> None:
    """Write a result file, whole or not at all.

    Raises:
        ValueError: names the first number that is not finite; JSON has no word for it.
    """
    for name, value in _numbers(data):
        if not math.isfinite(value):
            raise ValueError(f"{path.name} cannot hold {name}: it is {value}")
    replace_file(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def _numbers(data: JSON, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(data, float):
        yield name, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _numbers(value, f"{name}[{index}]")


def _commit() -> str | None:
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git("status", "--porcelain") else head


def _git(*arguments: str) -> str | None:
    """What git says of the folder this file lies in; None without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
