"""Speaking after tokens: word piece by word piece, each place read once.

B batch   k tokens of D channels   l word pieces so far   V that can be written
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from orderer.writing import Speaker

from .trunk import Condition, Trunk, see_before
from .words import Words


def speaker(
    trunk: Trunk, words: Words, condition: Condition, tokens: Float[Tensor, "B k D"]
) -> Speaker:
    """Score what comes after word pieces that grow by one from call to call.

    Args:
        trunk: reads.
        words: that can be written.
        condition: before the tokens, with nothing to leave out.
        tokens: standardised.
    """
    seen = torch.cat([condition.states, trunk.sequence(tokens)], dim=1)
    conditions, cache = condition.keep.shape[1], DynamicCache(config=trunk.decoder.config)

    def speak(text: Int[Tensor, "B l"]) -> Float[Tensor, "B V"]:
        x, read = torch.cat([seen, words(text)], dim=1), cache.get_seq_length()
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        places = trunk.places(conditions, x.shape[1] - conditions)
        mask = see_before(keep, x.shape[1] - read)
        states = trunk.run(x[:, read:], mask, places[read:], cache).last_hidden_state
        assert words.to_piece is not None  # it writes
        return words.to_piece(states[:, -1])

    return speak
