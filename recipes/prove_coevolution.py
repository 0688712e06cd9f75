r"""Do both models gain by stage 3? Arms of equal operations, over seeds, by measures apart from it.

    python -m recipes.prove_coevolution --config recipes/configs/coevolution/scenes.yaml
    python -m recipes.prove_coevolution --config recipes/configs/coevolution/cifar10.yaml \
        --data.source='[CIFAR10]'

    start         stages 1 and 2, as they are
    frozen        the AR model goes on, on the tokens of an orderer that stays
    apart         both go on, and neither hears of the other
    align, context, decode, rate
                  the orderer hears of the AR model by this route, see `ar.joint.Route`
    shuffled      aligned with the captions of other images
    orderer_only  aligned with an AR model that stays
    raster        no orderer: an AR model of patches row by row, with all operations of three stages

Every seed trains stages 1 and 2 once; each arm then does stage 3 for as many steps as the
operations of the configured route's arm pay for, those in which the orderer waits counted as what
they are. Raster has as many patches as there are tokens, where these make a square. A route that
breaks a limit stops itself; what it left is measured, and the results name it.

An AR loss is no evidence. Measured are: what a fresh AR model of stage 2's budget makes of the new
tokens (nats at equal error, captions followed, Fréchet distance), the same of the pair itself, what
the orderer understands (retrieval at every prefix, a fresh reader), and what the trunk does (linear
probes of its states; how likely it finds captions, where `train_ar.caption_weight` is above 0).
Differences to the arms `frozen` and `apart`, of `align` to `shuffled` too, are paired by seed; the
verdict follows from their intervals by rule, see `recipes.verdict`.

Writes OUT/coevolution.json, OUT/coevolution.html and OUT/ARM-SEED of each run; `--processes` runs
go side by side; `--resume` keeps what is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from ar import ARModel
from data.tokens import STORE
from orderer import Orderer, OrdererProcessor
from orderer.objectives import BALANCED_EVERY
from recipes.captioning import flops_of_writing
from recipes.coevolution import FROZEN, RASTER, START, gather
from recipes.coevolution_page import tables, write_coevolution_page
from recipes.comparison import Compared, check_arms, check_measured, runs_of, tell, write_comparison
from recipes.compute import flops_of
from recipes.engine.cli import STOPPED_ITSELF
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.engine.side_by_side import Job
from recipes.evaluation_settings import Task
from recipes.experiment import Experiment
from recipes.fidelity import can_see
from recipes.joining import Joint, check_route
from recipes.order_costs import costs_of, steps_within
from recipes.training_record import RECORD
from recipes.training_settings import JointTraining
from recipes.variants import job_of, job_of_pair, run_all, variant

ROUTES = ("align", "context", "decode", "rate")
"""By which the orderer hears of the AR model, and need not collapse."""
ARMS: Mapping[str, Mapping[str, Any]] = {
    FROZEN: {"route": FROZEN},
    "apart": {"route": "apart"},
    **{route: {"route": route} for route in ROUTES},
    "shuffled": {"route": "shuffled"},
    "orderer_only": {"route": "align", "ar_learns": False},
}
"""What each arm changes of stage 3."""
DENOISING = ("flow", "diffusion", "in_trunk")
OF_PAIR: tuple[Task, ...] = ("retrieval", "reconstruction", "probe", "generation", "rate", "trunk")
OF_FRESH: tuple[Task, ...] = ("reconstruction", "generation", "rate")
OF_RASTER: tuple[Task, ...] = (*OF_FRESH, "trunk")


@dataclass(frozen=True, kw_only=True)
class Coevolution(Compared):
    """An experiment whose third stage runs in several ways."""

    out: Path = Path("runs/coevolution")
    arms: tuple[str, ...] = (*ARMS, RASTER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arms(self.arms, (*ARMS, RASTER))
        if self.evaluation.judge == "retrieval":
            raise ValueError(
                "evaluation.judge must be apart from every arm: scenes, classes or words, got "
                "retrieval, by which each orderer judges itself"
            )
        if self.train_joint.route not in ROUTES:
            raise ValueError(
                f"train_joint.route must be among {', '.join(ROUTES)}: its steps are what the "
                f"other arms are given the operations of, got {self.train_joint.route}"
            )
        for arm in (FROZEN, self.train_joint.route):
            if arm not in self.arms:
                raise ValueError(f"arms must hold {arm}, got {', '.join(self.arms)}")
        if self.ar.get("head", "flow") not in DENOISING:
            raise ValueError(
                f"a rate needs a head among {', '.join(DENOISING)}, got {self.ar['head']}"
            )
        for arm in self.arms:
            if arm != RASTER:
                check_route(_stage_3(self, arm), self.train_orderer.objectives)


def main(proof: Coevolution) -> None:
    """Train stages 1 and 2, share the operations out, run every arm, measure, gather, write."""
    check_measured(proof, ("generation", *_distances(proof)))
    starts = {seed: proof.out / f"{START}-{seed}" for seed in proof.seeds}
    begin = [
        job_of_pair(variant(proof, out, seed), _asked(proof, OF_PAIR, OF_FRESH), proof.resume)
        for seed, out in starts.items()
    ]
    run_all(begin, proof.processes)
    costs = count(proof, starts[proof.seeds[0]])
    joint = proof.train_joint
    spent = costs[joint.route].of(joint)
    steps = {arm: each.steps_within(spent, _stage_3(proof, arm)) for arm, each in costs.items()}
    compute = {
        arm: {"steps": steps[arm], "flops": each.of(_stage_3(proof, arm, steps[arm]))}
        for arm, each in costs.items()
    }
    if RASTER in proof.arms:
        compute[RASTER] = _instead(proof, spent)
    runs = runs_of(proof.out, proof.arms, proof.seeds)
    jobs = [
        job_of_pair(
            raster_of(proof, compute[arm]["steps"], seed, out),
            _asked(proof, OF_RASTER),
            proof.resume,
        )
        if arm == RASTER
        else _arm(proof, arm, steps[arm], seed, starts[seed], out)
        for (arm, seed), out in runs.items()
    ]
    run_all(jobs, proof.processes)
    every = {**{(START, seed): out for seed, out in starts.items()}, **runs}
    results = gather(every, compute)
    out = proof.out / "coevolution.json"
    write_comparison(out, proof, every.values(), results, measured=starts.values())
    write_coevolution_page(proof.out, results)
    tell(tables(results), proof.out / "coevolution.html")


def _arm(proof: Coevolution, arm: str, steps: int, seed: int, begun: Path, out: Path) -> Job:
    """Stage 3 of an arm, its measures, and a fresh AR model on its tokens with measures of its own.

    The pair and the fresh model lie in folders of their own, where recipes find models by the names
    of stages 1 and 2. Tokens of an orderer that stays are the start's: so is a fresh model on them.
    """
    experiment = variant(proof, out, seed, train_joint=_stage_3(proof, arm, steps))
    for name in ("orderer", "ar"):
        _link(out / name, begun / name)
        _link(out / "pair" / name, out / "joint" / name)
    pair, fresh = out / "pair", out / "fresh"
    recipes = [
        (("train_joint",), out / "joint" / "orderer" / RECORD),
        (("evaluate", *_asked(proof, OF_PAIR), f"--out={pair}"), pair / "evaluation.json"),
    ]
    if arm == FROZEN:
        _link(fresh, begun)
    else:
        _link(fresh / "orderer", out / "joint" / "orderer")
        recipes += [
            (("write_tokens", f"--out={fresh}"), fresh / "held" / STORE),
            (("train_ar", f"--out={fresh}"), fresh / "ar" / RECORD),
            (("evaluate", *_asked(proof, OF_FRESH), f"--out={fresh}"), fresh / "evaluation.json"),
        ]
    return replace(job_of(experiment, recipes, proof.resume), good=(0, STOPPED_ITSELF))


def raster_of(proof: Coevolution, steps: int, seed: int, out: Path) -> Experiment:
    """The experiment of a seed without an orderer: as many patches as it would have tokens."""
    config = proof.orderer_config()
    side = isqrt(config.tokens)
    fits = side**2 == config.tokens and config.image_size % side == 0
    patch = config.image_size // side if fits else config.patch_size
    ar = proof.ar
    if ar.get("condition", "text") == "text":  # there is no text tower
        ar = {**ar, "condition": "words"}
    return variant(
        proof,
        out,
        seed,
        order={"order": RASTER, "patch_size": patch},
        ar=ar,
        train_ar=replace(proof.train_ar, steps=steps),
    )


def _instead(proof: Coevolution, spent: int) -> dict[str, int]:
    """The steps that raster's AR model can do with the operations of three stages."""
    begun = variant(proof, proof.out, proof.seed)
    whole = costs_of(begun).total(proof.train_ar.steps) + spent
    costs = costs_of(raster_of(proof, 1, proof.seed, proof.out))
    steps = steps_within(whole, costs, RASTER)
    return {"steps": steps, "flops": costs.total(steps)}


def _asked(proof: Coevolution, *tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, each once; distances and captions where a judge and AR models know of such."""
    asked = (*tasks, _distances(proof), _written(proof))
    return tuple(dict.fromkeys(task for some in asked for task in some))


def _distances(proof: Coevolution) -> tuple[Task, ...]:
    return ("fidelity",) if can_see(proof.evaluation) else ()


def _written(proof: Coevolution) -> tuple[Task, ...]:
    return ("captioning",) if proof.train_ar.caption_weight else ()


def _link(link: Path, folder: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(folder.resolve(), target_is_directory=True)


def _stage_3(proof: Coevolution, arm: str, steps: int | None = None) -> JointTraining:
    return replace(proof.train_joint, steps=steps or proof.train_joint.steps, **ARMS[arm])


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Operations of a step of stage 3."""

    learning: int
    """In which the orderer has its turn."""
    waiting: int
    """In which it has not."""
    measuring: int = 0
    """Besides, where the orderer's terms are balanced and their pulls measured."""

    def at(self, step: int, joint: JointTraining) -> int:
        """Those of a step (from 0)."""
        if not joint.reaches(step):
            return self.waiting
        return self.learning + (0 if step % BALANCED_EVERY else self.measuring)

    def of(self, joint: JointTraining) -> int:
        """Those of a whole stage."""
        return sum(self.at(step, joint) for step in range(joint.steps))

    def steps_within(self, spent: int, joint: JointTraining) -> int:
        """How many steps operations pay for, at least 1."""
        steps = 0
        while spent >= self.at(steps, joint):
            spent -= self.at(steps, joint)
            steps += 1
        return max(1, steps)


def count(proof: Coevolution, begun: Path) -> dict[str, StepCosts]:
    """What steps of every arm cost, counted on one batch."""
    return {arm: _costs(proof, begun, arm) for arm in proof.arms if arm != RASTER}


def _costs(proof: Coevolution, begun: Path, arm: str) -> StepCosts:
    """Of an arm: balanced terms are measured in the first step, and not in the second."""
    joint = replace(_stage_3(proof, arm), orderer_every=1)
    first, second = _operations(proof, begun, replace(joint, rewarm=0), 2)
    (waiting,) = _operations(proof, begun, replace(joint, rewarm=1), 1)
    balanced = proof.train_orderer.objectives.balanced
    return StepCosts(learning=second, waiting=waiting, measuring=first - second if balanced else 0)


def _operations(proof: Coevolution, begun: Path, joint: JointTraining, steps: int) -> list[int]:
    """Of the first steps, with the same draws for all arms."""
    silent = replace(proof.train_ar, caption_weight=0.0)
    experiment = variant(proof, begun, proof.seed, train_joint=joint, train_ar=silent)
    orderer = Orderer.from_pretrained(begun / "orderer")
    processor = OrdererProcessor.from_pretrained(begun / "orderer")
    model = ARModel.from_pretrained(begun / "ar")
    learner = Joint.of(experiment, orderer, model, processor)
    pairs = proof.data.open_train(orderer.config.image_size)
    draw = proof.data.draw(joint.batch_size, proof.seed)
    _, batch = next(proof.data.batches(pairs, draw, processor).ahead(0, 1, workers=1))
    written = 0
    if proof.train_ar.caption_weight:
        with torch.no_grad():
            tokens = orderer.encode(batch.images)
        written = flops_of_writing(model, tokens, batch.captions, processor)
    found = []
    for step in range(steps):
        seed_everything(proof.seed, rank=0)
        found.append(written + flops_of(partial(learner.learn, step, batch)))
    return found


if __name__ == "__main__":
    start(main, Coevolution)
