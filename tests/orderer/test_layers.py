"""Attention written out is torch's attention."""

import pytest
import torch
from torch.nn import functional as F

from orderer.layers import attend, causal_mask, query_mask


@pytest.mark.parametrize(
    "mask",
    [None, causal_mask(5, torch.device("cpu")), query_mask(3, 2, True, torch.device("cpu"))],
    ids=["everything", "causal", "queries"],
)
def test_it_is_torchs_attention_and_so_are_its_gradients(mask: torch.Tensor | None) -> None:
    leaves = [torch.randn(2, 3, 5, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]
    weights = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    ours = attend(*leaves, mask)
    theirs = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    for found, wanted in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
