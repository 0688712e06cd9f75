"""A fresh reader learns from frozen tokens and leaves them as they are."""

import torch

from orderer import Orderer, OrdererProcessor
from orderer.evaluation import FreshReader

CAPTIONS = ["a red ring", "a blue moon", "a green cross", "a pink square"]


def test_fifty_steps_teach_a_fresh_reader_which_tokens_belong_to_a_caption(
    tiny_orderer: Orderer,
) -> None:
    said = OrdererProcessor(16, 40).said([[caption] * 3 for caption in CAPTIONS])
    tokens = torch.randn(4, 4, 6, requires_grad=True)
    reader = FreshReader(tiny_orderer.config)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = reader(tokens.detach(), said)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0] and tokens.grad is None
