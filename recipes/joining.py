"""One step of stage 3: what each model learns, and what reaches the orderer through the other.

B batch   K tokens   D channels of a token
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ar import ARModel
from ar.joint import Junction, Route, own_loss
from data import Batch
from orderer import Orderer, OrdererProcessor, Said, Stage1
from orderer.objectives import Objectives
from recipes.captioning import loss_of_writing, say
from recipes.conditions import condition_on
from recipes.engine.anchor import Anchor
from recipes.engine.ema import moving_average
from recipes.engine.processes import of_all
from recipes.engine.training import Learner, apply_gradients, clear_gradients, precise
from recipes.experiment import Experiment
from recipes.reaching import Reaching
from recipes.training_settings import JointTraining

NEEDED: Mapping[Route, str] = {
    "align": "contrastive",
    "shuffled": "contrastive",
    "decode": "reconstruction",
    "rate": "reconstruction",
}
"""The loss of stage 1 without which a route asks models that learned nothing of it."""
GRADIENT = ("share", "asked", "cosine")
"""Of `ar.joint.Junction`: how much of stage 1's gradient stage 2 adds, and would add without a cap,
and whether they agree."""


def check_route(joint: JointTraining, objectives: Objectives) -> None:
    """Refuse a route whose loss of stage 1 is switched off, and a contrast that cannot go on.

    Raises:
        ValueError: for either.
    """
    needed = NEEDED.get(joint.route)
    if needed and not getattr(objectives, needed):
        raise ValueError(
            f"the route {joint.route} needs train_orderer.objectives.{needed}, which is 0"
        )
    if joint.route != "frozen" and objectives.similarity == "siglip":
        raise ValueError(
            "stage 3 goes on with the contrast infonce only: the bias that the sigmoid form "
            "learns is not kept with an orderer, got train_orderer.objectives.similarity siglip"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Joint:
    """Both models, what trains them, and their averages."""

    experiment: Experiment
    stage: Stage1
    model: ARModel
    processor: OrdererProcessor
    reaching: Reaching
    learners: Mapping[str, Learner]
    averages: Mapping[str, AveragedModel]
    anchor: Anchor
    noise: Float[Tensor, "K D"] | None
    """Deviations that stage 1 sees the tokens through: of the route `rate` only."""

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        orderer: Orderer,
        model: ARModel,
        processor: OrdererProcessor,
    ) -> "Joint":
        """Make two models ready to learn.

        Raises:
            ValueError: for a route that the AR model's head has no way for, or that does not suit
                stage 1's losses, see `check_route`.
        """
        settings, objectives = experiment.train_joint, experiment.train_orderer.objectives
        check_route(settings, objectives)
        stage = Stage1(orderer, objectives.replayed()).to(orderer.device)
        reaching = Reaching(settings.route, orderer, model, settings.noise).to(orderer.device)
        generating = nn.ModuleDict({"ar": model.train(), "reaching": reaching})
        model.requires_grad_(settings.ar_learns)
        learners = {"ar": settings.ar_optim.learner(generating, settings.steps)}
        if settings.route == "frozen":
            orderer.requires_grad_(False)
        else:
            learners["orderer"] = settings.orderer_optim.learner(
                stage.train(), settings.steps, settings.rewarm
            )
        return cls(
            experiment=experiment,
            stage=stage,
            model=model,
            processor=processor,
            reaching=reaching,
            learners=learners,
            averages={
                "orderer-average": moving_average(orderer, settings.ema_decay),
                "ar-average": moving_average(model, settings.ema_decay),
            },
            anchor=Anchor(stage.parameters()),
            noise=settings.noise * model.std if settings.route == "rate" else None,
        )

    def learn(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Do update number `step` (from 0) of the AR model, and of the orderer if it is its turn.

        Returns:
            What is worth logging: losses, and of steps in which the orderer learns what the
            junction knows of stage 2's gradient at the tokens, see GRADIENT.
        """
        experiment, settings = self.experiment, self.experiment.train_joint
        device = self.model.null.device
        images = batch.images.to(device)
        detail = experiment.train_orderer.detail
        said = say(batch, self.processor, self.stage.orderer.config.tokens, detail).to(device)
        clear_gradients(list(self.learners.values()))
        learners, logged = [self.learners["ar"]], {}
        if not settings.reaches(step):
            with torch.no_grad(), precise(device, experiment.precision):
                seen = self.stage.orderer.encode(images)
            losses = self._stage_2(seen, batch, said, images)
            loss = torch.stack(list(losses.values())).sum()
            loss.backward()
        else:
            weights = self.stage.objectives.full_weights()
            with precise(device, experiment.precision):
                terms = self.stage(images, said, weights, noise=self.noise)
            weights = self.stage.balanced(terms, weights, step)  # while nothing joins the gradient
            junction = self._junction(terms.tokens)
            seen = junction.seen
            losses = self._stage_2(seen, batch, said, images)
            asked, own = torch.stack(list(losses.values())).sum(), terms.total(weights)
            asked.backward()
            own.backward()
            loss = asked + own
            learners.append(self.learners["orderer"])
            gradient = {name: getattr(junction, name) for name in GRADIENT}
            logged = {**terms.values, **gradient}
        logged = {"loss": loss.detach(), **losses, **logged}
        norms = apply_gradients(step, learners, logged, batch.keys)
        self._settle(step, seen.detach())
        names = ("ar_gradient_norm", "orderer_gradient_norm")
        return {**logged, **dict(zip(names, norms, strict=False))}

    def _junction(self, tokens: Float[Tensor, "B K D"]) -> Junction:
        settings = self.experiment.train_joint
        match settings.route:
            case "apart":
                return Junction(tokens, weight=0.0)
            case "full":
                return Junction(tokens, settings.weight)
            case _:
                return Junction(tokens, settings.weight, settings.cap)

    def _stage_2(
        self,
        seen: Float[Tensor, "B K D"],
        batch: Batch,
        said: Said,
        images: UInt8[Tensor, "B 3 H W"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The AR model's own loss, that of its writing, and what the route asks."""
        experiment, model, orderer = self.experiment, self.model, self.stage.orderer
        settings, weight = experiment.train_joint, experiment.train_ar.caption_weight
        dropped = torch.rand(len(images)) < experiment.train_ar.condition_drop
        with precise(seen.device, experiment.precision):
            condition = condition_on(batch.captions, model, orderer, self.processor)
            condition = model.drop(condition, dropped.to(seen.device))
            targets = None
            if settings.route == "context":
                with torch.no_grad():
                    targets = self.averaged_orderer.encode(images)
            losses = {"ar": own_loss(settings.route, model, seen, condition, targets).mean()}
            if model.config.writes and weight:
                tokens = seen.detach()
                written = loss_of_writing(model, tokens, batch.captions, self.processor)
                losses["caption"] = weight * written
            return losses | self.reaching(orderer, model, seen, condition, said, images)

    def _settle(self, step: int, tokens: Float[Tensor, "B K D"]) -> None:
        """What follows an update: the pull to the start, the statistics, the averages."""
        settings = self.experiment.train_joint
        if settings.reaches(step):
            self.anchor.pull(settings.trust * self.learners["orderer"].schedule.factor(step))
            if settings.route != "rate" and settings.ar_learns:
                self.model.follow_statistics(of_all(tokens.float()), settings.follow)
        self.averages["orderer-average"].update_parameters(self.stage.orderer)
        self.averages["ar-average"].update_parameters(self.model)

    @property
    def averaged_orderer(self) -> Orderer:
        average = self.averages["orderer-average"].module
        assert isinstance(average, Orderer)
        return average

    def averaged(self) -> tuple[Orderer, ARModel]:
        """The averages of both, bound to each other."""
        model = self.averages["ar-average"].module
        assert isinstance(model, ARModel)
        model.config.orderer_hash = self.averaged_orderer.encoding_hash()
        return self.averaged_orderer.eval(), model.eval()
