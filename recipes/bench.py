r"""Measure a part against the usual way of doing the same, both in one run.

    python -m recipes.bench data
    python -m recipes.bench orderer --json=bench.json
    python -m recipes.bench ar --runs=3
    python -m recipes.bench joint
    python -m recipes.bench checkpoint
    python -m recipes.bench data --source=flickr8k --split=val --json=bench.json --runs=7

Prints for each case our figure, that of the reference, and how many times better ours is: medians
over runs in which the two take turns, so that a busy machine slows both. With --json they also go
into a file: {case: {"ours", "reference", "ratio", "runs", "unit", and what it was measured with}}.

`data`: images per second of one core, from shards of 256-pixel JPEG files to batches: through the
member index into uint8, against webdataset, Pillow and float normalisation. The images are drawn,
or those of a folder of shards, brought to 256 pixels and JPEG quality 90. And the seconds to open a
set of 1,000 shards and read from its middle, against reading the headers of its tars. The shards
are written to a temporary folder (50 MB). Takes a minute.

`orderer`: an orderer of the size of TiTok-S/128 at 256 pixels, random weights, on one core: packed
and written as it is in `orderer`, against the same model in plain torch, in fp32 and bf16, encoding
and a training step; the cost of a prefix; what limits them, the rate of the linear layers. With a
GPU instead what share of its rate of matrix products a training step reaches. Takes six minutes.

`ar`: an AR model of 64 tokens with a trunk of 512 x 8 and a head of 1024 x 6, random weights, on
one core: sampling, packed, against the plain loop of MAR and its like, in seconds of CPU time; a
training step; what it costs to have more tokens, steps or images; the rate of the linear layers.
Takes ten minutes with three runs.

`joint`: a step of stage 3 by each route, against one of stage 1 and one of stage 2 of the same
sizes and pairs, those of the demo, in seconds of CPU time on one core; and memory. Takes two
minutes.

`checkpoint`: seconds that training stands still for a save of an orderer of that size with AdamW's
moments, synced, hashed and read back, against `torch.save`, which does none of that; what share of
the time between two saves that is; and what is left of it in the background. Takes a minute.

`retrieval`: seconds of the clock to score 5,000 images and 25,010 captions, both ways and at 8
prefixes, in fp64 with counted ties, against lists of the best in fp32; and the peak of memory.
Takes some minutes with one run.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recipes.benchmarks import ar, checkpoint, data, joint, orderer, retrieval
from recipes.engine.cli import run as start
from recipes.engine.result_kinds import check_result
from recipes.engine.results import provenance, write_json


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    what: Literal["data", "orderer", "ar", "joint", "checkpoint", "retrieval"]
    source: Path | None = None
    """Folder of shards to take images from (data); null draws some."""
    split: str = "train"
    runs: int = 5
    json: Path | None = None
    """File for the figures, written after every case."""

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"runs must be at least 1, got {self.runs}")


def main(config: Config) -> None:
    """Measure, print, write."""
    cases, about = {}, provenance()
    if config.what == "data":
        measured = data.measure(config.runs, config.source, config.split)
    else:
        parts = {"orderer": orderer, "ar": ar, "joint": joint}
        parts |= {"checkpoint": checkpoint, "retrieval": retrieval}
        measured = parts[config.what].measure(config.runs)
    for case in measured:
        print(case, flush=True)
        cases[case.name] = {**case.as_json(), **about}
        if config.json is not None:  # after every case: the next one may take minutes
            check_result(cases, config.json)
            write_json(config.json, cases)


def with_what(arguments: Sequence[str]) -> list[str]:
    """Read a first word as what to measure."""
    if arguments and not arguments[0].startswith("-"):
        return [f"--what={arguments[0]}", *arguments[1:]]
    return list(arguments)


if __name__ == "__main__":
    start(main, Config, with_what(sys.argv[1:]))
