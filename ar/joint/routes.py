"""Routes: the ways by which the AR model's loss may reach the orderer.

    B batch   K tokens   D channels of a token

A loss of the next token can reach an encoder by what it predicts from (the context) and by what it
predicts (the target). Through the target the encoder learns to say what is easy to predict, which
in the end is nothing.
"""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from ..model import ARModel
from ..trunk import Condition

Route = Literal["frozen", "apart", "align", "shuffled", "context", "decode", "rate", "full"]
"""How stage 2 reaches the orderer.

frozen   not at all, and the orderer learns nothing
apart    not at all, though the orderer goes on with stage 1: a control
align    by an alignment of the trunk's states with captions, see `TrunkAlignment`
shuffled as `align`, with the captions of other images: a control
context  by the loss of tokens that an averaged orderer gives, through the tokens before them
decode   by the error of images that are decoded from the head's guesses, through the same
rate     by the rate of tokens in fixed noise: nats that cannot be saved by shrinking. The AR model
         learns by its own loss, of tokens without noise, so that the bound is as loose as it is at
         levels it was not trained for; the evaluation takes the plain guess there, see
         `recipes.rating`, the training does not
full     by the loss, everywhere: what collapses, a control
"""
ROUTES: tuple[Route, ...] = get_args(Route)


def own_loss(
    route: Route,
    model: ARModel,
    tokens: Float[Tensor, "B K D"],
    condition: Condition,
    targets: Float[Tensor, "B K D"] | None = None,
) -> Float[Tensor, "K"]:
    """The AR model's own loss, as far as a route lets it reach the tokens.

    Args:
        route: `context` lets it through the tokens that are looked back at, `full` everywhere; the
            others nowhere.
        model: that learns.
        tokens: of the orderer that learns.
        condition: before them.
        targets: of `context`: the same images' tokens by the averaged orderer.

    Raises:
        ValueError: for `context` without targets.
    """
    match route:
        case "context":
            if targets is None:
                raise ValueError("the route context learns tokens of an averaged orderer, got none")
            return model.loss(targets, condition, context=tokens)
        case "full":
            return model.loss(tokens, condition)
        case _:
            return model.loss(tokens.detach(), condition)
