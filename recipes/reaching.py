"""What a route asks of the orderer beside the AR model's own loss.

B batch   K tokens   D channels of a token
"""

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ar import ARModel, Condition
from ar.joint import Route, TrunkAlignment, frozen, rate
from orderer import Orderer, Said, contrastive_loss, prefix_lengths


class Reaching(nn.Module):
    """The loss of a route.

    Args:
        route: see `ar.joint.Route`.
        orderer: that is reached.
        model: through which.
        noise: of the route `rate`, in deviations of each channel.
    """

    def __init__(self, route: Route, orderer: Orderer, model: ARModel, noise: float) -> None:
        super().__init__()
        if route in ("decode", "rate") and not model.head.has_timesteps:
            raise ValueError(
                f"the route {route} takes the guesses of a head that denoises, the head "
                f"{model.config.head!r} makes none"
            )
        self.route, self.noise = route, noise
        is_aligned, count = route in ("align", "shuffled"), orderer.config.tokens
        if is_aligned and count < 2:
            raise ValueError(
                f"the route {route} reads the trunk between tokens, an orderer of 2 or more is "
                f"needed, got {count}"
            )
        self.prefixes = [k - 1 for k in prefix_lengths(count) if k < count]
        self.alignment = TrunkAlignment(model, orderer.config.embed_dim) if is_aligned else None

    def forward(
        self,
        orderer: Orderer,
        model: ARModel,
        seen: Float[Tensor, "B K D"],
        condition: Condition,
        said: Said,
        images: UInt8[Tensor, "B 3 H W"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss by its name, none for routes that go by the AR model's own."""
        match self.route:
            case "align" | "shuffled":
                return {"alignment": self._aligned(orderer, model, seen, said)}
            case "decode":
                return {"decoded": _decoded(orderer, model, seen, condition, images)}
            case "rate" if seen.requires_grad:
                given = replace(condition, states=condition.states.detach())
                with frozen(model):  # it would else learn levels that hardly decide what is drawn
                    nats = rate(model, seen, given, self.noise)
                return {"rate": nats.mean() / seen.shape[2]}
            case _:
                return {}

    def _aligned(
        self, orderer: Orderer, model: ARModel, seen: Float[Tensor, "B K D"], said: Said
    ) -> Float[Tensor, ""]:
        """The trunk's states at every measured prefix but the whole must tell the caption."""
        assert self.alignment is not None
        at = said.at[:, : len(self.prefixes)]
        if self.route == "shuffled":
            at = at.roll(1, dims=0)
        with torch.no_grad():  # the text tower is stage 1's
            texts = orderer.embed_texts(said.texts)
        return contrastive_loss(
            self.alignment(model, seen)[:, self.prefixes].float(),
            texts.float()[at],
            said.numbers[at],
            orderer.scale.detach(),
        ).mean()


def _decoded(
    orderer: Orderer,
    model: ARModel,
    seen: Float[Tensor, "B K D"],
    condition: Condition,
    images: UInt8[Tensor, "B 3 H W"],
) -> Float[Tensor, ""]:
    """How far images are from those that a frozen decoder makes of the head's guesses.

    The guesses are of noisy tokens that are given; what reaches the orderer went through the tokens
    before.
    """
    context = model.standardise(seen)
    t = model.head.draw_timesteps(len(seen), seen.device).view(1, -1, 1)
    guess = model.head.guess_through(model.trunk, context.detach(), context, condition, t)[0]
    keep = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
    with frozen(orderer):
        return orderer.rebuild(model.restore(guess), keep, images).loss
