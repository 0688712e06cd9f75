"""The contrastive loss: CLIP's when captions are unique, the same on any number of processes."""

import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from orderer.objectives import contrastive_loss, sigmoid_loss


def batch(prefixes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Eight pairs: unit embeddings of images at every prefix and of captions, and the scale."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, prefixes, 5, generator=generator, dtype=torch.float64)
    texts = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return F.normalize(images, dim=-1), F.normalize(texts, dim=-1), torch.tensor(7.0).double()


def given(texts: Tensor, captions: Tensor, prefixes: int = 3) -> tuple[Tensor, Tensor]:
    """The same caption at every prefix."""
    return texts[:, None].expand(-1, prefixes, -1), captions[:, None].expand(-1, prefixes)


CAPTIONS = torch.tensor([0, 1, 2, 0, 3, 1, 0, 4])


def test_unique_captions_give_the_loss_of_open_clip() -> None:
    from open_clip import ClipLoss

    images, texts, scale = batch()
    losses = contrastive_loss(images, *given(texts, torch.arange(8)), scale)
    for prefix, loss in enumerate(losses):
        expected = ClipLoss()(images[:, prefix], texts, scale)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)


def test_two_equal_captions_share_the_target() -> None:
    # Orthogonal pictures; pictures 0 and 1 have the same caption, along e0.
    images = torch.eye(3, dtype=torch.float64)[:, None]  # [B, P, E]
    texts = torch.eye(3, dtype=torch.float64)[[0, 0, 2]]
    (loss,) = contrastive_loss(
        images, *given(texts, torch.tensor([5, 5, 9]), 1), torch.tensor(1.0).double()
    )
    e = math.e
    to_text = [math.log(2 * e + 1) - 1, math.log(3), math.log(e + 2) - 1]
    to_image = [math.log(e + 2) - 0.5, math.log(e + 2) - 0.5, math.log(e + 2) - 1]
    assert loss.item() == pytest.approx((sum(to_text) + sum(to_image)) / 6, abs=1e-12)


def test_equal_captions_do_not_push_each_other_away() -> None:
    images = torch.eye(2, dtype=torch.float64)[[0, 0]][:, None]
    texts = torch.eye(2, dtype=torch.float64)[[0, 0]].requires_grad_()
    scale = torch.tensor(10.0).double()
    (loss,) = contrastive_loss(images, *given(texts, torch.tensor([1, 1]), 1), scale)
    assert loss.item() == pytest.approx(math.log(2))  # the least there is: half a target each
    loss.backward()
    assert texts.grad is not None and texts.grad.abs().max() < 1e-12


def test_the_order_of_pairs_does_not_matter() -> None:
    images, texts, scale = batch()
    shuffled = torch.randperm(8)
    torch.testing.assert_close(
        contrastive_loss(images[shuffled], *given(texts[shuffled], CAPTIONS[shuffled]), scale),
        contrastive_loss(images, *given(texts, CAPTIONS), scale),
    )


def gradients(
    form: str, images: Tensor, texts: Tensor, captions: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """Loss and gradients as data-parallel training has them: of shared parameters."""
    mix = torch.eye(5, dtype=images.dtype).requires_grad_()
    scale = scale.clone().requires_grad_()
    compared = (F.normalize(images @ mix, dim=-1), *given(texts @ mix, captions), scale)
    if form == "infonce":
        losses = contrastive_loss(*compared)
    else:
        losses = sigmoid_loss(*compared, torch.tensor(-3.0).double())
    (losses * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert mix.grad is not None and scale.grad is not None
    return {"losses": losses.detach(), "mix": mix.grad, "scale": scale.grad}


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_agree_with_one_on_the_whole_batch(world: int, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=work, args=(tmp_path, rank, world), daemon=True)
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * world
    images, texts, scale = batch()
    for form in ("infonce", "siglip"):
        expected = gradients(form, images, texts, CAPTIONS, scale)
        for rank in range(world):
            found = load_file(tmp_path / f"{form}-{rank}.safetensors")
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, atol=1e-12, rtol=0)
                rounded = found[f"{name}-fp32"].double()
                assert (rounded - value).norm() <= 1e-5 * value.norm()


def work(folder: Path, rank: int, world: int) -> None:
    """What each process does: its share of the batch, then the mean of gradients over processes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    images, texts, scale = batch()
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for form in ("infonce", "siglip"):
        found = gradients(form, images[mine], texts[mine], CAPTIONS[mine], scale)
        rounded = gradients(
            form, images[mine].float(), texts[mine].float(), CAPTIONS[mine], scale.float()
        )
        found |= {f"{name}-fp32": value for name, value in rounded.items()}
        for name in ("mix", "scale", "mix-fp32", "scale-fp32"):
            torch.distributed.all_reduce(found[name])
            found[name] /= world
        save_file(found, folder / f"{form}-{rank}.safetensors")
    torch.distributed.barrier()  # leaving while the other still talks can abort it
    torch.distributed.destroy_process_group()


def test_the_sigmoid_form_is_the_loss_of_open_clip() -> None:
    from open_clip.loss import SigLipLoss

    images, texts, scale = batch()
    bias = torch.tensor(-3.0).double()
    losses = sigmoid_loss(images, *given(texts, torch.arange(8)), scale, bias)
    for prefix, loss in enumerate(losses):
        expected = SigLipLoss()(images[:, prefix], texts, scale, bias)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)


def test_scores_are_taken_in_fp32_also_inside_bf16() -> None:
    images, texts, scale = (x.float() for x in batch())
    compared = (images, *given(texts, CAPTIONS), scale)
    expected = contrastive_loss(*compared), sigmoid_loss(*compared, torch.tensor(-3.0))
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive_loss(*compared), sigmoid_loss(*compared, torch.tensor(-3.0))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=1e-6)


def test_averaging_the_losses_of_micro_batches_is_another_law_than_the_whole_batchs() -> None:
    images, texts, scale = batch()
    losses = [
        contrastive_loss(images[part], *given(texts[part], CAPTIONS[part]), scale)
        for part in (slice(0, 8), slice(0, 4), slice(4, 8))
    ]
    assert ((losses[1] + losses[2]) / 2 < losses[0] - 0.1).all()  # fewer negatives: easier


def test_each_prefix_is_compared_with_its_own_captions() -> None:
    images, texts, scale = batch()
    other = texts.roll(1, dims=0)
    growing = torch.stack([other, texts, texts], dim=1)
    captions = torch.arange(8)[:, None].expand(-1, 3)
    losses = contrastive_loss(images, growing, captions, scale)
    same = contrastive_loss(images, *given(texts, torch.arange(8)), scale)
    torch.testing.assert_close(losses[1:], same[1:])
    assert not torch.isclose(losses[0], same[0])
