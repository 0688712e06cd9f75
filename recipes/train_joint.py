"""Stage 3: fine-tune the orderer and the AR model together.

    python -m recipes.train_joint
    python -m recipes.train_joint --train_joint.route=context

Reads OUT/orderer and OUT/ar; writes OUT/joint/orderer, OUT/joint/ar (each with training.json, what
it was trained with, stage 3 under "joint"), OUT/logs and OUT/checkpoints/joint; `--resume` goes on
from the newest of these. Starts unchanged under `torchrun` and `accelerate launch`. On 2 CPU cores
the default takes under a minute.

The orderer keeps stage 1's losses at full weight (but those whose networks it does not hand on: the
adversarial one and the alignment of features), on replayed pairs. What stage 2 asks of it comes by
one route (`train_joint.route`), weighed and capped where the two meet, at the tokens. The AR loss
alone says nothing: it falls while tokens collapse. So rank, deviation, redundancy, novelty, drift,
recall and error are watched on pairs set apart, and a training that breaks one of
`train_joint.limits` stops itself, saves the models as they were at its last good checkpoint, and
ends with exit code 4. One whose averages alone break a limit in the end saves them, says so, and
ends with 4 too.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor

from ar import ARModel
from data import Batch, apart, in_memory
from orderer import Orderer, OrdererProcessor
from orderer.transformers_towers import weight_files
from orderer.weights import digest_of
from recipes.data_settings import (
    WHAT_A_STEP_SEES,
    captions_of_all,
    check_captions,
    tell_skipped,
)
from recipes.engine.cli import StoppedItself
from recipes.engine.cli import run as start
from recipes.engine.files import JSON
from recipes.engine.processes import others_wait_for, seed_everything
from recipes.engine.run import Run
from recipes.engine.settings import scalars_named, settings_named
from recipes.engine.training import Progress, prepare_device
from recipes.experiment import Experiment
from recipes.joining import GRADIENT, Joint
from recipes.planning import tell_plan
from recipes.training_record import read_record, training_record, write_record
from recipes.watching import SHOWN, Watch

SHAPING = (
    *WHAT_A_STEP_SEES,
    "train_joint",
    "train_orderer.objectives",
    "train_orderer.detail",
    "train_ar.condition_drop",
    "train_ar.caption_weight",
    "seed",
    "precision",
)
"""Settings that the learning depends on."""


def main(experiment: Experiment) -> None:
    """Train both, watch, checkpoint, save."""
    settings = experiment.train_joint
    device = prepare_device(experiment.execution.stall_seconds)
    orderer = Orderer.from_pretrained(experiment.out / "orderer").to(device)
    processor = OrdererProcessor.from_pretrained(experiment.out / "orderer")
    model = ARModel.from_pretrained(experiment.out / "ar").to(device)
    model.check_orderer(orderer.encoding_hash())
    pairs = experiment.data.open_train(orderer.config.image_size)
    check_captions(experiment.data.phrased(captions_of_all(pairs)), processor)
    replayed, held = apart(pairs, settings.watched)
    watched = in_memory(held, processor.image_size, max_skipped=experiment.data.max_skipped)
    watch = Watch(watched, processor, orderer)

    seed_everything(experiment.seed, rank=0)  # the same start on every process
    joint = Joint.of(experiment, orderer, model, processor)
    progress = Progress(
        saver=experiment.saver("joint"),
        total="train_joint.steps",
        learners=joint.learners,
        settings=shaping(experiment, joint, pairs.fingerprint),
        averages=joint.averages,
    )
    first, earlier = progress.restore(experiment.resume)
    run = experiment.run("joint", settings, first, earlier, ("loss", *SHOWN))
    another = experiment.seed + 1  # than stage 1's order
    draw = experiment.data.draw(settings.batch_size, another, run)
    if experiment.dry_run:
        return tell_plan(experiment, settings, progress, first, pairs)

    with run, progress.saver:
        batches = experiment.data.batches(replayed, draw, processor)
        watch.start = run.mean(watch.start)
        if first == 0:
            progress.save(0, run)  # the first good state
        ahead = batches.ahead(first, settings.steps, experiment.data.workers)
        is_done, complaint = learn(experiment, joint, watch, progress, run, ahead)
        if not is_done:
            return
        averaged, _ = joint.averaged()
        after = run.mean(watch.measure(averaged))
        if not complaint and (broken := watch.complaint(after, settings.limits)):
            complaint = (
                "the averages that stage 3 ended with break a limit, its models do not: "
                f"{broken}; they are in {experiment.out / 'joint'}"
            )
        record = training_record(
            experiment,
            *("train_orderer", "train_ar", "train_joint"),
            pairs=pairs.fingerprint,
            processes=run.world,
            totals=progress.totals,
        ) | {"watched": {"before": watch.start, "after": after}, "stopped": complaint}
        tell_skipped(pairs.name, batches.skipped)
        others_wait_for(partial(hand_on, experiment, joint, record))
        if complaint:
            raise StoppedItself(complaint)


def shaping(experiment: Experiment, joint: Joint, pairs: str) -> dict[str, Any]:
    """What a training that is resumed must have in common with its start."""
    return {
        **settings_named(experiment, *SHAPING),
        "pairs": pairs,
        **scalars_named("orderer", joint.stage.orderer.config.own()),
        **scalars_named("ar", joint.model.config.own()),
        "weights of orderer": digest_of(weight_files(experiment.out / "orderer")),
        "weights of ar": digest_of(weight_files(experiment.out / "ar")),
        **{f"weights of {name}_model": sha for name, sha in joint.stage.teachers.items()},
    }


def learn(
    experiment: Experiment,
    joint: Joint,
    watch: Watch,
    progress: Progress,
    run: Run,
    ahead: Iterable[tuple[int, Batch]],
) -> tuple[bool, str | None]:
    """Train on batches, and look at the watched pairs now and then.

    Returns:
        False if asked to stop, else True; and what ended the training before its time: its models
        are then those of the last good checkpoint.
    """
    settings, gradient = experiment.train_joint, dict[str, Tensor]()
    for step, batch in ahead:
        seed_everything(experiment.seed, run.rank, step)
        logged = joint.learn(step, batch)
        gradient = {name: logged[name] for name in GRADIENT if name in logged} or gradient
        run.log(step, logged)
        done = step + 1
        saves = progress.is_due(done, run) or run.stop_requested
        looks = saves or done % settings.watch_every == 0
        if looks:
            found = run.mean(watch.measure(joint.stage.orderer))  # all processes decide alike
            run.record(step, found | run.mean(gradient))  # of the orderer's last step since then
            gradient = {}
            if complaint := watch.complaint(found, settings.limits):
                good = progress.return_to_newest()
                return True, (
                    f"stage 3 stopped itself at step {done}: {complaint}; "
                    f"{experiment.out / 'joint'} holds the models of step {good}"
                )
        if progress.stops_after(done, run):
            return False, None
        if looks and not saves:
            progress.save(done, run)  # a good state, to come back to
    return True, None


def hand_on(experiment: Experiment, joint: Joint, record: dict[str, JSON]) -> None:
    """Save what both models have become, and how."""
    averaged, generating = joint.averaged()
    generating.save_pretrained(experiment.out / "joint" / "ar")
    averaged.save_pretrained(experiment.out / "joint" / "orderer")
    joint.processor.save_pretrained(experiment.out / "joint" / "orderer")
    for name in ("ar", "orderer"):  # the orderer's last: with it stage 3 is done
        before = read_record(experiment.out / name) or {}
        write_record(experiment.out / "joint" / name, {**before, "joint": record})


if __name__ == "__main__":
    start(main, Experiment)
