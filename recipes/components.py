"""The images that the components of a fixed order are fitted to, and whether they are enough."""

from data import Pairs, PairSource, apart, in_memory
from recipes.experiment import Experiment

FITTED = 5000
"""Images that the components are taken from, spread over the training split."""


def images_to_fit(experiment: Experiment, opened: PairSource) -> Pairs:
    """Some of the training images."""
    size, most = experiment.sequence_config().image_size, experiment.data.max_skipped
    some = apart(opened, FITTED)[1] if len(opened) > FITTED else opened
    return in_memory(some, size, max_skipped=most)


def check_enough_cells(experiment: Experiment) -> None:
    """Refuse, before anything is trained, an order whose components the images are too few for.

    Raises:
        ValueError: for images with no more cells in all than a cell has values.
    """
    config = experiment.sequence_config()
    images = min(FITTED, len(experiment.data.open_train(config.image_size)))
    cells, values = images * (config.image_size // config.cell) ** 2, 3 * config.cell**2
    if cells <= values:
        raise ValueError(
            f"components of {values} values, for the order {config.order}, need at least "
            f"{values + 1} cells, got {cells} of {images} training images"
        )
