"""Pictures of a laboratory of orders: its paths, and what its arms draw from the same captions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ar import ARModel
from orderer import OrdererProcessor
from orderer.sequences import SequenceConfig, load_sequence
from orderer.sequences.paths import PATHS, shuffled
from recipes.comparison import FRECHET
from recipes.decoding import decoded
from recipes.engine import pictures
from recipes.engine.sheets import strips
from recipes.experiment import Experiment
from recipes.generation import Drawer, prompts
from recipes.guidance import samplings
from recipes.orders_report import drawn_with

CELLS = 8
"""Of a drawn grid, on a side."""
ROWS = 8
"""Captions that all arms draw."""


def draw_paths(path: Path) -> None:
    """Draw the paths over patches; that at random is the one of the arm `shuffled`."""
    drawn = {name: visit(CELLS) for name, visit in PATHS.items()}
    pictures.paths({**drawn, "shuffled": shuffled(CELLS, SequenceConfig().draw)}, path)


@torch.no_grad()
def draw_together(
    arms: Mapping[str, Experiment], found: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Draw the first captions by each arm, column by column, from the same seeds.

    Args:
        arms: an experiment of each.
        found: the figures of each, of which the Fréchet distance says how it is guided.
        path: of the picture.
    """
    columns = {}
    for arm, experiment in arms.items():
        figures = found[arm]["figures"]
        ways = samplings(experiment)
        best = min(ways, key=lambda name: figures[drawn_with(name, FRECHET)]["mean"])
        folder = experiment.out / "orderer"
        sequence, processor = load_sequence(folder).eval(), OrdererProcessor.from_pretrained(folder)
        model = ARModel.from_pretrained(experiment.out / "ar").eval()
        drawer = Drawer(experiment=experiment, orderer=sequence, processor=processor, model=model)
        captions = prompts(experiment, experiment.data.open_unseen(processor.image_size), ROWS)
        columns[arm] = decoded(sequence, drawer.draw(captions, ways[best]))
    strips(columns, path)
