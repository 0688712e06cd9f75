"""The AR model: a causal trunk over ordered tokens, and a flow head for each next token.

B batch   K tokens   D channels of a token   C places of the condition   W width
E channels of a word's embedding   k tokens of a prefix
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from orderer.pretrained import CheckedModel

from .config import ARConfig
from .heads import FlowHead
from .sampling import sample_tokens
from .trunk import Condition, Trunk


class ARModel(CheckedModel):
    """Stage 2. `loss` on tokens of an orderer, `generate` new ones for that orderer to decode."""

    config_class = ARConfig
    main_input_name = "tokens"
    config: ARConfig

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(config)
        self.head = FlowHead(config)
        self.project = {
            "none": lambda: nn.Identity(),
            "class": lambda: nn.Embedding(len(config.class_names), config.width),
            "text": lambda: nn.Sequential(
                nn.LayerNorm(config.condition_dim), nn.Linear(config.condition_dim, config.width)
            ),
        }[config.condition]()
        self.null = nn.Parameter(torch.randn(config.width) * 0.02)
        self.register_buffer("mean", torch.zeros(config.tokens, config.token_dim))
        self.register_buffer("std", torch.ones(config.tokens, config.token_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the start that each part gives itself."""

    def set_statistics(self, mean: Float[Tensor, "K D"], std: Float[Tensor, "K D"]) -> None:
        """Store the tokens' mean and deviation per (position, channel), saved with the weights.

        Raises:
            ValueError: if a channel never varies, since it cannot be standardised.
        """
        if not bool((std > 1e-6).all()):
            raise ValueError(f"a token channel has a deviation of {std.min().item():g}")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def check_orderer(self, orderer_hash: str) -> None:
        """Refuse another orderer than the one whose tokens are modelled.

        Raises:
            ValueError: if the hashes differ.
        """
        if orderer_hash != self.config.orderer_hash:
            raise ValueError(
                f"this AR model was trained on tokens of orderer {self.config.orderer_hash[:12]}, "
                f"not of orderer {orderer_hash[:12]}"
            )

    def standardise(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k D"]:
        """Give each (position, channel) zero mean and unit variance over the training set."""
        k = tokens.shape[1]
        return (tokens - self.mean[:k]) / self.std[:k]

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k D"]:
        """Undo `standardise`."""
        k = tokens.shape[1]
        return tokens * self.std[:k] + self.mean[:k]

    def unconditioned(self, batch: int) -> Condition:
        """The learned null condition, in one place."""
        keep = torch.ones(batch, 1, dtype=torch.bool, device=self.null.device)
        return Condition(states=self.null.expand(batch, 1, -1), keep=keep)

    def conditioned_on_text(
        self, words: Float[Tensor, "B C E"], keep: Bool[Tensor, "B C"]
    ) -> Condition:
        """Condition on the words of a text, see `Orderer.embed_words`.

        The trunk reads them itself: the states of a text tower that has learned to tell whole
        captions apart say less of which word belongs to which.

        Raises:
            ValueError: for another kind of model, or more words than its context holds.
        """
        self._expect("text")
        most = self.config.context_length
        if words.shape[1] > most:
            raise ValueError(f"this AR model reads {most} word pieces, got {words.shape[1]}")
        return Condition(states=self.project(words), keep=keep)

    def conditioned_on_class(self, labels: Int[Tensor, "B"]) -> Condition:
        """Condition on class labels, the places of their names in `config.class_names`."""
        self._expect("class")
        keep = torch.ones(len(labels), 1, dtype=torch.bool, device=labels.device)
        return Condition(states=self.project(labels)[:, None], keep=keep)

    def drop(self, condition: Condition, dropped: Bool[Tensor, "B"]) -> Condition:
        """Put the null condition in the place of some rows' conditions."""
        first = torch.arange(condition.keep.shape[1], device=dropped.device) == 0  # [C]
        null = self.null.expand_as(condition.states)
        return Condition(
            states=torch.where(dropped[:, None, None], null, condition.states),
            keep=torch.where(dropped[:, None], first, condition.keep),
        )

    def forward(
        self, tokens: Float[Tensor, "B K D"], condition: Condition
    ) -> Float[Tensor, "B K W"]:
        """The trunk's states: position k predicts token k from the ones before it."""
        return self.trunk(self.standardise(tokens)[:, :-1], condition)

    def loss(
        self,
        tokens: Float[Tensor, "B K D"],
        condition: Condition,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "K"]:
        """Squared error of the flow head's tokens at each position, the mean over images.

        Tokens are standardised here; see `FlowHead.loss`.
        """
        target = self.standardise(tokens)
        states = self.trunk(target[:, :-1], condition)  # [B, K, W]
        return self.head.loss(target, states, generator).mean(dim=0)

    @torch.no_grad()
    def generate(
        self,
        condition: Condition,
        *,
        guidance_scale: float = 1.5,
        steps: int = 15,
        prefix: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B k D"]:
        """Draw the first `prefix` tokens (all by default) for each row of the condition.

        Args:
            condition: from one of the `conditioned_on_...` or `unconditioned`.
            guidance_scale: 1.0 is off.
            steps: Euler steps per token.
            prefix: k in 1..K.
            generator: source of the noise, on the model's device.

        Raises:
            ValueError: for a prefix outside 1..K or fewer than 1 step.
        """
        prefix = self.config.tokens if prefix is None else prefix
        if not 1 <= prefix <= self.config.tokens:
            raise ValueError(f"prefix must lie in 1..{self.config.tokens}, got {prefix}")
        null = self.unconditioned(len(condition.keep)) if guidance_scale != 1.0 else None
        noise = torch.randn(
            len(condition.keep),
            prefix,
            self.config.token_dim,
            device=condition.states.device,
            generator=generator,
        )
        tokens = sample_tokens(self.trunk, self.head, condition, null, noise, guidance_scale, steps)
        return self.restore(tokens)

    def _expect(self, kind: str) -> None:
        if self.config.condition != kind:
            raise ValueError(
                f"this AR model has the condition {self.config.condition!r}, not {kind!r}"
            )


AutoConfig.register(ARConfig.model_type, ARConfig)
AutoModel.register(ARConfig, ARModel)
