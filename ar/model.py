"""The AR model: a causal trunk over ordered tokens, and a head for each next token.

B batch   K tokens   D channels of a token   C places of the condition   W width
E channels of a word's embedding   k tokens of a prefix   L word pieces   V that can be written
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from orderer.inputs import check_prefix, check_tokens
from orderer.packed import PackedLinear
from orderer.pieces import UNKNOWN, spoken
from orderer.pretrained import CheckedModel
from orderer.writing import starts, write

from .config import ARConfig
from .heads import make_head
from .sampling import row_noise, sample_tokens
from .settings import Sampling
from .speaking import speaker
from .trunk import Condition, Trunk
from .words import Words

NOISE_FLOOR = 0.1
"""Deviation of the noise that a likelihood is taken with, in deviations of each channel."""
LEAST_DEVIATION = 1e-6
"""Of a channel that can be standardised."""
FAR = 0.2
"""Most that the deviation of standardised tokens may be away from 1, their mean from 0."""


class ARModel(CheckedModel):
    """Stage 2. `loss` on tokens of an orderer, `generate` new ones for that orderer to decode."""

    config_class = ARConfig
    main_input_name = "tokens"
    config: ARConfig

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(config)
        self.head = make_head(config)
        self.project = {
            "none": lambda: nn.Identity(),
            "class": lambda: nn.Embedding(len(config.class_names), config.width),
            "text": lambda: nn.Sequential(
                nn.LayerNorm(config.condition_dim), nn.Linear(config.condition_dim, config.width)
            ),
            "words": lambda: nn.Identity(),
        }[config.condition]()
        self.words = Words(config) if config.has_words else None
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
        if not bool((std > LEAST_DEVIATION).all()):
            raise ValueError(f"a token channel has a deviation of {std.min().item():g}")
        self.mean.copy_(mean)
        self.std.copy_(self._scaled(std))

    @torch.no_grad()
    def follow_statistics(self, tokens: Float[Tensor, "N K D"], share: float) -> None:
        """Move the stored mean and deviation towards those of tokens that are still changing.

        Args:
            tokens: of many images.
            share: of the way, in 0..1.
        """
        self.mean.lerp_(tokens.mean(dim=0).to(self.mean), share)
        std = tokens.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION)
        self.std.lerp_(self._scaled(std.to(self.std)), share)

    def _scaled(self, std: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
        """What tokens are divided by."""
        if self.config.scaling == "whole":
            return std.square().mean().sqrt().expand_as(std)
        return std

    def check_statistics(self, tokens: Float[Tensor, "N K D"]) -> None:
        """Refuse tokens that the stored statistics do not standardise: of another orderer, say.

        Raises:
            ValueError: naming what is off.
        """
        self._check_tokens(tokens)
        standard = self.standardise(tokens)
        mean = standard.mean(dim=0).square().mean().sqrt().item()
        std = standard.std(dim=0, correction=0).square().mean().sqrt().item()
        if not (mean <= FAR and abs(std - 1) <= FAR):
            raise ValueError(
                "the statistics of this AR model do not fit the tokens: standardised, their mean "
                f"is {mean:.2f} away from 0 and their deviation {std:.2f}"
            )

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

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse guidance by what the model never learned without.

        Raises:
            ValueError: with the scale.
        """
        if sampling.context_scale != 1.0 and not self.config.context_drop:
            raise ValueError(
                "guidance by the context needs an AR model that learned some images without it "
                f"(ar.context_drop above 0), got context_scale {sampling.context_scale:g}"
            )

    def standardise(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k D"]:
        """Give each (position, channel) zero mean over the training set, and unit variance, or all
        of them together, see `config.scaling`.
        """
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
        self._check_length(words.shape[1])
        if words.shape[2] != self.config.condition_dim:
            raise ValueError(
                f"words must have {self.config.condition_dim} channels, got {words.shape[2]}"
            )
        return Condition(states=self.project(words.to(self.null.dtype)), keep=keep)

    def conditioned_on_words(self, text: Int[Tensor, "B L"]) -> Condition:
        """Condition on a caption in the model's own words, tokenised by `OrdererProcessor.text`.

        Raises:
            ValueError: for another kind of model, or more words than its context holds.
        """
        self._expect("words")
        self._check_length(text.shape[1])
        assert self.words is not None
        return Condition(states=self.words(text), keep=spoken(text))

    def conditioned_on_class(self, labels: Int[Tensor, "B"]) -> Condition:
        """Condition on class labels, the places of their names in `config.class_names`.

        Raises:
            ValueError: for another kind of model, or a label that is no such place.
        """
        self._expect("class")
        classes = len(self.config.class_names)
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside):
            raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(outside[0])}")
        keep = torch.ones(len(labels), 1, dtype=torch.bool, device=labels.device)
        return Condition(states=self.project(labels)[:, None], keep=keep)

    def drop(self, condition: Condition, dropped: Bool[Tensor, "B"]) -> Condition:
        """Put the null condition in the place of some rows' conditions."""
        first = torch.arange(condition.keep.shape[1], device=dropped.device) == 0  # [C]
        null = self.null.expand_as(condition.states)
        return Condition(
            states=torch.where(dropped[:, None, None], null, condition.states),
            keep=torch.where(dropped[:, None], first, condition.keep),
            order=condition.order,
        )

    def ordered(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        *of_tokens: Float[Tensor, "B K D"],
    ) -> tuple[Condition, list[Float[Tensor, "B K D"]]]:
        """Bring what stands in the tokens' own order into the one in which they are modelled.

        For a model of random orders one is drawn for each image, unless the condition has one.

        Args:
            condition: gets the order.
            generator: of the draws, on the model's device.
            of_tokens: what each token has.
        """
        if self.config.order == "given":
            return condition, list(of_tokens)
        order = condition.order
        if order is None:
            shape = len(condition.keep), self.config.tokens
            order = torch.rand(shape, device=self.null.device, generator=generator).argsort(dim=1)
        condition, place = replace(condition, order=order), order[:, :, None]
        return condition, [each.gather(1, place.expand_as(each)) for each in of_tokens]

    def forward(
        self, tokens: Float[Tensor, "B K D"], condition: Condition
    ) -> Float[Tensor, "B K W"]:
        """The trunk's states: position k predicts token k from the ones before it.

        They stand in the order in which tokens are modelled, see `ordered`.
        """
        condition, (standard,) = self.ordered(condition, None, self.standardise(tokens))
        return self.trunk(standard[:, :-1], condition)

    def loss(
        self,
        tokens: Float[Tensor, "B K D"],
        condition: Condition,
        generator: torch.Generator | None = None,
        *,
        context: Float[Tensor, "B K D"] | None = None,
    ) -> Float[Tensor, "K"]:
        """The head's loss at each position, the mean over images; see `Head.loss_through`.

        Args:
            tokens: to predict.
            condition: before them.
            generator: of noise and timesteps, on the model's device.
            context: the tokens that are looked back at; the same by default. In train mode they
                carry `config.context_noise`, and those of `config.context_drop` are not seen.
        """
        self._check_tokens(tokens, condition)
        target = self.standardise(tokens)
        context = target if context is None else self.standardise(context)
        context = self._looked_back_at(context, generator) if self.training else context
        condition, (target, context) = self.ordered(condition, generator, target, context)
        return self.head.loss_through(self.trunk, target, context, condition, generator).mean(dim=0)

    @torch.no_grad()
    def errors_at(
        self,
        tokens: Float[Tensor, "B K D"],
        condition: Condition,
        timesteps: Sequence[float],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T"]:
        """Mean squared error of what the head predicts at each of T timesteps.

        Unlike the loss it does not depend on where training looks, nor on its weights.

        Raises:
            ValueError: for a head that knows no timesteps.
        """
        self._check_tokens(tokens, condition)
        condition, (standard,) = self.ordered(condition, generator, self.standardise(tokens))
        t = torch.tensor(timesteps, device=standard.device).view(-1, 1, 1)
        t = t.expand(-1, len(tokens), 1)
        errors = self.head.errors_through(self.trunk, standard, standard, condition, t, generator)
        return errors.mean(dim=(1, 2))

    @torch.no_grad()
    def log_prob(
        self,
        tokens: Float[Tensor, "B K D"],
        condition: Condition,
        floor: float = NOISE_FLOOR,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """The density of each token given the condition and the tokens before it, in nats.

        It is the density of tokens, as the orderer makes them, plus a little noise, so that no head
        gains without bound where tokens hardly vary. A closed form for `mixture`, `regression` and
        `categorical`; for heads that denoise see `log_density`; `energy` has none. It compares
        heads and models of one orderer and one `scaling`; divide by the channels for nats per
        dimension. Of a model of random orders, tokens stand in the order that was drawn.

        Args:
            tokens: without noise.
            condition: before them.
            floor: deviation of the noise, in what each channel is divided by; 0 only for heads with
                a closed form.
            generator: of the noise, on the model's device.

        Raises:
            ValueError: for tokens of another size or not finite, a head without a likelihood, a
                packed model, which has no derivatives, or one in train mode.
        """
        self._check_tokens(tokens, condition)
        self._check_unpacked("likelihood")
        self._check_settled()
        standard, std = self.standardise(tokens), self.std[: tokens.shape[1]].expand_as(tokens)
        condition, (standard, std) = self.ordered(condition, generator, standard, std)
        noise = torch.randn(standard.shape, device=standard.device, generator=generator)
        noisy = standard + floor * noise
        density = self.head.log_prob_through(
            self.trunk, noisy, standard, condition, floor, generator
        )
        return density - std.log().sum(dim=-1)

    @torch.no_grad()
    def generate(
        self,
        condition: Condition,
        *,
        sampling: Sampling | None = None,
        seeds: Sequence[int] | None = None,
        prefix: int | None = None,
        first: Float[Tensor, "B k D"] | None = None,
    ) -> Float[Tensor, "B _ D"]:
        """Draw the first `prefix` tokens (all by default) for each row of the condition.

        Args:
            condition: from one of the `conditioned_on_...` or `unconditioned`.
            sampling: how; `Sampling()` by default.
            seeds: one for each row, which then is a function of its seed and condition alone; by
                default drawn from torch's global generator.
            prefix: k in 1..K.
            first: tokens to go on from, fewer than `prefix`.

        Raises:
            ValueError: for a prefix outside 1..K, no more than the tokens that are there, seeds
                that are not one for each row, first tokens of a model of random orders, or
                guidance by the context of a model that never learned without it.
        """
        sampling = sampling or Sampling()
        if self.config.condition == "none":  # the tokens before are all there is to guide by
            sampling = replace(sampling, guidance_scale=1.0)
        self.check_sampling(sampling)
        prefix = self.config.tokens if prefix is None else prefix
        check_prefix(prefix, self.config.tokens)
        rows = len(condition.keep)
        seeds = torch.randint(2**62, (rows,)).tolist() if seeds is None else seeds
        if len(seeds) != rows:
            raise ValueError(f"each of the {rows} rows needs a seed, got {len(seeds)}")
        self._check_settled()
        condition = self._in_drawn_order(condition, seeds, prefix)
        first = self._begun(first, rows, prefix)
        noise_shape = (self.config.tokens, *self.head.noise_shape(sampling))
        tokens = sample_tokens(
            self.trunk,
            self.head,
            condition,
            self.unconditioned(rows),
            first,
            row_noise(seeds, noise_shape, self.null.device),
            sampling,
            prefix,
        )
        if condition.order is not None:
            tokens = tokens.gather(1, condition.order.argsort(dim=1)[:, :, None].expand_as(tokens))
        return self.restore(tokens)

    @property
    def own_words(self) -> Words:
        """The words that it writes captions in; refused for a model that writes none."""
        if self.words is None or self.words.to_piece is None:
            raise ValueError("captions are written by an AR model with `writes`, got false")
        return self.words

    def caption_loss(
        self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of captions after k tokens, the mean over all word pieces it can write.

        Raises:
            ValueError: for a model that does not write, or captions longer than its context.
        """
        logits, targets = self._scored(tokens, text)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def caption_likelihood(
        self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B"]:
        """How likely captions are, given k tokens: nats, summed over the pieces it can write.

        Raises:
            ValueError: for a model that does not write, or captions longer than its context.
        """
        logits, targets = self._scored(tokens, text)
        each = -F.cross_entropy(logits.mT, targets, reduction="none", ignore_index=UNKNOWN)
        return each.sum(dim=1)

    @torch.no_grad()
    def caption(
        self,
        tokens: Float[Tensor, "B k D"],
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B L"]:
        """Write a caption from the first k tokens of each image; `OrdererProcessor.words` reads it.

        Args:
            tokens: k of them, in 1..K.
            temperature: 0 takes the likeliest word piece, 1 draws from what the model says.
            generator: source of the draws, on the model's device.

        Raises:
            ValueError: for a model that does not write, or a temperature below 0.
        """
        self._check_tokens(tokens)
        self._check_unpacked("captions")
        self._check_settled()
        return write(
            speaker(
                self.trunk,
                self.own_words,
                self.unconditioned(len(tokens)),
                self.standardise(tokens),
            ),
            self.own_words.piece,
            starts(len(tokens), tokens.device),
            self.config.context_length,
            temperature,
            generator,
        )

    def _scored(
        self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B l V"], Int[Tensor, "B l"]]:
        """Scores of what comes after each word piece but the last, and what does."""
        self._check_length(text.shape[1])
        if len(text) != len(tokens):
            raise ValueError(f"{len(tokens)} sequences need as many captions, got {len(text)}")
        return self._written(tokens, text[:, :-1]).float(), self.own_words.targets(text)

    def _written(
        self, tokens: Float[Tensor, "B k D"], text: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        """Score what may come after each word piece of a caption that follows the tokens."""
        self._check_tokens(tokens)
        self._check_unpacked("captions")
        words = self.own_words
        seen = torch.cat([self.trunk.sequence(self.standardise(tokens)), words(text)], dim=1)
        read = self.trunk.read(self.unconditioned(len(tokens)), seen)
        assert words.to_piece is not None
        return words.to_piece(read.last_hidden_state[:, -text.shape[1] :])

    def _looked_back_at(
        self, tokens: Float[Tensor, "B K D"], generator: torch.Generator | None
    ) -> Float[Tensor, "B K D"]:
        """Standardised tokens as training sees them: with noise, and of some images not at all."""
        device, of_image = tokens.device, (len(tokens), 1, 1)
        if self.config.context_noise:
            deviation = torch.rand(of_image, device=device, generator=generator)
            noise = torch.randn(tokens.shape, device=device, generator=generator)
            tokens = tokens + self.config.context_noise * deviation * noise
        if self.config.context_drop:
            draw = torch.rand(of_image, device=device, generator=generator)
            tokens = tokens.masked_fill(draw < self.config.context_drop, 0)
        return tokens

    def _in_drawn_order(self, condition: Condition, seeds: Sequence[int], prefix: int) -> Condition:
        """For a model of random orders, a condition with the order that each seed draws."""
        if self.config.order == "given":
            return condition
        count = self.config.tokens
        if prefix < count:
            raise ValueError(
                f"a model of random orders draws all {count} tokens, whose prefixes are no images' "
                f"first ones, got prefix {prefix}"
            )
        orders = [
            torch.randperm(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return replace(condition, order=torch.stack(orders).to(self.null.device))

    def _begun(
        self, first: Float[Tensor, "B k D"] | None, rows: int, prefix: int
    ) -> Float[Tensor, "B k D"]:
        """The standardised tokens that a sequence begins with."""
        if first is None:
            return torch.empty(rows, 0, self.config.token_dim, device=self.null.device)
        if self.config.order != "given":
            raise ValueError("a model of random orders goes on from no tokens, got first ones")
        check_tokens(first, self.config.tokens, self.config.token_dim)
        if len(first) != rows:
            raise ValueError(f"each of the {rows} rows needs first tokens, got {len(first)}")
        if first.shape[1] >= prefix:
            raise ValueError(
                f"prefix must be above the {first.shape[1]} tokens given, got {prefix}"
            )
        return self.standardise(first)

    def _check_tokens(
        self, tokens: Float[Tensor, "B k D"], condition: Condition | None = None
    ) -> None:
        check_tokens(tokens, self.config.tokens, self.config.token_dim)
        if condition is not None and len(condition.keep) != len(tokens):
            raise ValueError(
                f"{len(tokens)} sequences need as many conditions, got {len(condition.keep)}"
            )

    def _check_settled(self) -> None:
        """A trunk may drop some of its states while it learns."""
        if self.training:
            raise ValueError("an AR model draws and scores in eval mode, it is in train mode")

    def _check_unpacked(self, what: str) -> None:
        """Packed layers have no derivatives, and mix dtypes where nothing is cached."""
        if any(isinstance(module, PackedLinear) for module in self.modules()):
            raise ValueError(f"a packed model only generates: take {what} from what was packed")

    def _check_length(self, pieces: int) -> None:
        if pieces > self.config.context_length:
            raise ValueError(
                f"this AR model reads {self.config.context_length} word pieces, got {pieces}"
            )

    def _expect(self, kind: str) -> None:
        if self.config.condition != kind:
            raise ValueError(
                f"this AR model has the condition {self.config.condition!r}, not {kind!r}"
            )


AutoConfig.register(ARConfig.model_type, ARConfig)
AutoModel.register(ARConfig, ARModel)
