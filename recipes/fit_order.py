"""In place of stage 1: a fixed order, whose components are fitted on the training images.

    python -m recipes.fit_order --order.order=hilbert --out=runs/hilbert

Writes OUT/orderer, which `write_tokens`, `train_ar` and `evaluate` read like an orderer; the AR
model then has the condition `words`, `class` or `none`. What orders there are, says
`orderer.sequences.SequenceConfig`. Takes seconds.
"""

from orderer import OrdererProcessor
from orderer.sequences import FixedOrder
from recipes.components import images_to_fit
from recipes.engine.cli import run as start
from recipes.experiment import Experiment
from recipes.training_record import training_record, write_record


def main(experiment: Experiment) -> None:
    """Fit and save."""
    experiment.check_is_done()
    config = experiment.sequence_config()
    opened = experiment.data.open_train(config.image_size)
    order = FixedOrder(config)
    order.fit(images_to_fit(experiment, opened).images)
    folder = experiment.out / "orderer"
    order.save_pretrained(folder)
    OrdererProcessor(config.image_size, config.context_length).save_pretrained(folder)
    write_record(
        folder, training_record(experiment, "order", pairs=opened.fingerprint, processes=1)
    )
    print(f"{folder}: {config.tokens} tokens of {config.token_dim} channels")


if __name__ == "__main__":
    start(main, Experiment)
