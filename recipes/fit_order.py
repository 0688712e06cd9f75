"""In place of stage 1: a fixed order, whose components are fitted on the training images.

    python -m recipes.fit_order --order.order=hilbert --out=runs/hilbert

Writes OUT/orderer, which `write_tokens`, `train_ar` and `evaluate` read like an orderer; the AR
model then has the condition `words`, `class` or `none`. What orders there are, says
`orderer.sequences.SequenceConfig`. Takes seconds.
"""

from data import apart, in_memory
from orderer import OrdererProcessor
from orderer.sequences import FixedOrder
from recipes.engine.cli import run as start
from recipes.experiment import Experiment
from recipes.training_record import training_record, write_record

FITTED = 5000
"""Images that the components are taken from, spread over the training split."""


def main(experiment: Experiment) -> None:
    """Fit and save."""
    config = experiment.sequence_config()
    opened = experiment.data.open_train(config.image_size)
    some = apart(opened, FITTED)[1] if len(opened) > FITTED else opened
    pairs = in_memory(some, config.image_size, max_skipped=experiment.data.max_skipped)
    order = FixedOrder(config)
    order.fit(pairs.images)
    folder = experiment.out / "orderer"
    order.save_pretrained(folder)
    OrdererProcessor(config.image_size, config.context_length).save_pretrained(folder)
    write_record(
        folder, training_record(experiment, "order", pairs=opened.fingerprint, processes=1)
    )
    print(f"{folder}: {config.tokens} tokens of {config.token_dim} channels")


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


if __name__ == "__main__":
    start(main, Experiment)
