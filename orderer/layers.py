"""The transformer block of the orderer.

B batch   L sequence   Q those of it that look   W width   H heads   E = W / H
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
    """Scaled dot-product attention, as torch's; on the CPU it is written out.

    There torch's plain form, which scales twice, looks for rows that see nothing and keeps bf16
    scores in fp32, takes twice the time at our sizes.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
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
        self, x: Float[Tensor, "B L W"], mask: Bool[Tensor, "*rows L L"] | None = None
    ) -> Float[Tensor, "B L W"]:
        q, k, v = rearrange(self.qkv(x), "b l (three h e) -> three b h l e", three=3, h=self.heads)
        return self.out(rearrange(attend(q, k, v, mask), "b h l e -> b l (h e)"))


class Block(GradientCheckpointingLayer):
    """Pre-norm attention, then a pre-norm MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(
        self, x: Float[Tensor, "B L W"], mask: Bool[Tensor, "*rows L L"] | None = None
    ) -> Float[Tensor, "B L W"]:
        x = x + self.attention(self.norm_1(x), mask)
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
