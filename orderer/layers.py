"""The transformer block of the orderer.

B batch   L sequence   Q those of it that look   R rows of a mask   W width   H heads   E = W / H
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_layers import GradientCheckpointingLayer

FUSED_FROM = 128
"""Places from which torch's fused attention is the faster one for fp32 on a CPU."""

EVERYTHING = slice(None)


def portable_attention(device: torch.device) -> AbstractContextManager[None]:
    """Choose the plain form of torch's attention on the CPU, for the models of others.

    There the backward pass of the fused kernel takes half of a training step at our sizes.
    """
    return nullcontext() if device.type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def attend(
    q: Float[Tensor, "B H Q E"],
    k: Float[Tensor, "B H L E"],
    v: Float[Tensor, "B H L E"],
    mask: Bool[Tensor, "*rows Q L"] | None = None,
) -> Float[Tensor, "B H Q E"]:
    """Scaled dot-product attention, as torch's; on the CPU it is mostly written out.

    There torch's plain form, which scales twice, looks for rows that see nothing and keeps bf16
    scores in fp32, takes twice the time at our sizes, and the fused kernel is faster only for many
    fp32 places: for 384 it takes 0.7 of the time in fp32 and 1.4 times as long in bf16, with the
    backward pass 0.8 of it and 2.0 times as long.
    """
    if q.device.type != "cpu" or (q.dtype == torch.float32 and k.shape[2] >= FUSED_FROM):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # else copied in each product
    scores = q @ k.mT * q.shape[-1] ** -0.5  # [B, H, Q, L]
    if mask is not None:
        scores = scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head self-attention; `mask` is True where a row may look at a column.

    One for all, or [B, 1, L, L], one for each.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B L W"],
        mask: Bool[Tensor, "*rows R L"] | None = None,
        apart: int = 0,
        wanted: slice = EVERYTHING,
    ) -> Float[Tensor, "B Q W"]:
        """Attend; see `Block`."""
        q, k, v = rearrange(self.qkv(x), "b l (three h e) -> three b h l e", three=3, h=self.heads)
        seen = attend(q[:, :, apart:][:, :, wanted], k, v, mask)
        if apart:
            first = attend(*(each[:, :, :apart] for each in (q, k, v)))
            seen = torch.cat([first, seen], dim=2)
        return self.out(rearrange(seen, "b h l e -> b l (h e)"))


class BlockParts(GradientCheckpointingLayer):
    """What blocks of every kind are made of."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )


class Block(BlockParts):
    """Pre-norm attention, then a pre-norm MLP."""

    def forward(
        self,
        x: Float[Tensor, "B L W"],
        mask: Bool[Tensor, "*rows R L"] | None = None,
        apart: int = 0,
        wanted: slice = EVERYTHING,
    ) -> Float[Tensor, "B Q W"]:
        """Run a sequence, without the work whose outcome nobody sees.

        Args:
            x: the sequence.
            mask: True where a row may look at a column; without one it looks at all.
            apart: so many places at the start see each other only; `mask` is about the others.
            wanted: the places to return, of those that are not apart; `mask` has rows for them.
        """
        x = x[:, wanted] + self.attention(self.norm_1(x), mask, apart, wanted)
        return x + self.mlp(self.norm_2(x))


def causal_mask(length: int, device: torch.device) -> Bool[Tensor, "L L"]:
    """Position i sees positions 0..i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def query_mask(
    patches: int, queries: int, causal: bool, device: torch.device
) -> Bool[Tensor, "L L"]:
    """Patches see patches; query i sees every patch and the queries 0..i, or all if not causal."""
    mask = causal_mask(patches + queries, device)
    mask[:patches, :patches] = True
    if not causal:
        mask[patches:, patches:] = True
    return mask
