"""What can be refused before a training or a measurement begins, and before anything is deleted."""

from dataclasses import dataclass

from data import PairSource, ShardUrls
from orderer import OrdererConfig, OrdererProcessor, Stage1, start_orderer, start_processor
from orderer.qformer import load_qformer
from orderer.sequences import SequenceConfig
from recipes.data_settings import captions_of_all, check_captions, known_pieces
from recipes.engine.training import check_divides
from recipes.experiment import Experiment


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """All that stage 1 has before its first step, on the CPU."""

    pairs: PairSource | ShardUrls
    processor: OrdererProcessor
    stage: Stage1


def build_stage1(experiment: Experiment, is_fresh: bool) -> Built:
    """Build what stage 1 trains, and read every caption.

    Args:
        experiment: what to train.
        is_fresh: False where a checkpoint is gone on from, which makes the Q-Former's folder
            needless.

    Raises:
        OSError: if a file or folder that a setting names is not there.
        ValueError: for settings that do not go together, or a caption that is too long.
    """
    settings = experiment.train_orderer
    config = experiment.orderer_config()
    processor = start_processor(config)
    pairs = experiment.data.open_train_or_urls(config.image_size)
    check_captions(experiment.data.phrased(captions_of_all(pairs)), processor)
    if config.fusion_layers is not None:
        phrased = experiment.data.phrased(captions_of_all(pairs))
        config = experiment.orderer_config(known_pieces(phrased, processor))
    model = start_orderer(config)
    if settings.qformer is not None and is_fresh:
        load_qformer(model.encoder, settings.qformer)  # while its weights are still whole
    return Built(pairs=pairs, processor=processor, stage=Stage1(model, settings.objectives))


def check_stage1(experiment: Experiment, is_fresh: bool, processes: int) -> None:
    """Refuse what the training of stage 1 would refuse before its first step."""
    settings = experiment.train_orderer
    check_divides(settings.batch_size, settings.accumulate, processes)
    build_stage1(experiment, is_fresh)


OF_ORDERERS = ("retrieval", "classification", "probe", "factors", "search")
"""Tasks that ask what only an orderer has: a readout, and a text tower."""


def check_learned(experiment: Experiment, config: OrdererConfig | SequenceConfig) -> None:
    """Refuse to measure of a fixed order what only an orderer has.

    Raises:
        ValueError: naming the task or the judge.
    """
    if isinstance(config, OrdererConfig):
        return
    for task in experiment.evaluation.tasks:
        if task in OF_ORDERERS:
            raise ValueError(
                f"the task {task} needs an orderer, got the fixed order {config.order}"
            )
    if experiment.evaluation.judge == "retrieval":
        raise ValueError(
            "evaluation.judge must be scenes, classes or words for the fixed order "
            f"{config.order}, got retrieval"
        )


def check_fusion(
    experiment: Experiment, config: OrdererConfig | SequenceConfig, ar_writes: bool
) -> None:
    """Refuse to measure what only an orderer with fusion can do, or an AR model that writes.

    Raises:
        ValueError: if captioning is asked where neither is there, or reranking without fusion.
    """
    tasks, rerank = experiment.evaluation.tasks, experiment.evaluation.rerank
    if isinstance(config, OrdererConfig) and config.fusion_layers is not None:
        return
    if "captioning" in tasks and not ar_writes:
        raise ValueError(
            "the task captioning needs an orderer with fusion_layers, got null, or an AR model "
            "trained with train_ar.caption_weight above 0"
        )
    if rerank and "retrieval" in tasks:
        raise ValueError(
            f"evaluation.rerank {rerank} needs an orderer with fusion_layers, got null"
        )
