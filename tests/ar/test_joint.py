"""The alignment: the trunk's own reading of every prefix."""

import torch

from ar import ARModel
from ar.joint import Alignment


def test_an_alignment_of_a_prefix_sees_its_tokens_and_no_later_ones(tiny_ar: ARModel) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    embeddings = Alignment(tiny_ar, embed_dim=8)(tiny_ar, tokens)
    assert embeddings.shape == (1, 4, 8)
    for k in range(4):
        (gradient,) = torch.autograd.grad(embeddings[0, k, 0], tokens, retain_graph=True)
        assert gradient[0].abs().sum(dim=-1).gt(0).tolist() == [i <= k for i in range(4)]


def test_aligned_embeddings_have_unit_length(tiny_ar: ARModel) -> None:
    embeddings = Alignment(tiny_ar, embed_dim=8)(tiny_ar, torch.randn(3, 4, 6))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3, 4))


def test_it_reaches_the_tokens_and_leaves_the_model_alone(tiny_ar: ARModel) -> None:
    tokens = torch.randn(3, 4, 6, requires_grad=True)
    alignment = Alignment(tiny_ar, embed_dim=8)
    alignment(tiny_ar, tokens).square().sum(dim=1).std().backward()
    assert tokens.grad is not None and bool((tokens.grad != 0).any())
    assert all(parameter.grad is not None for parameter in alignment.parameters())
    assert all(parameter.grad is None for parameter in tiny_ar.parameters())
    assert all(parameter.requires_grad for parameter in tiny_ar.parameters())
