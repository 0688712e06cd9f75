"""Flows: closed forms."""

import pytest
import torch
from torch import Tensor

from orderer.flow import (
    euler,
    guide,
    heun,
    logit_normal_density,
    logit_normal_timesteps,
    on_path,
    shifted,
    uniform_times,
)


def test_a_path_starts_at_noise_and_ends_at_data() -> None:
    data, noise = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.equal(on_path(data, noise, torch.zeros(3)), noise)
    assert torch.equal(on_path(data, noise, torch.ones(3)), data)


def test_the_velocity_of_a_path_is_data_minus_noise() -> None:
    data, noise = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    early, late = torch.full((3,), 0.3).double(), torch.full((3,), 0.8).double()
    way = on_path(data, noise, late) - on_path(data, noise, early)
    torch.testing.assert_close(way / 0.5, data - noise)


def test_euler_is_exact_on_a_straight_flow_in_any_number_of_steps() -> None:
    data, noise = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    for steps in (1, 2, 7):
        torch.testing.assert_close(
            euler(lambda x, step: data - noise, noise, uniform_times(steps)), data
        )


def test_euler_halves_its_error_when_its_steps_double() -> None:
    def error(steps: int) -> Tensor:  # of x' = x from 1, which ends at e
        end = euler(lambda x, step: x, torch.ones(1, 1).double(), uniform_times(steps))
        return (end - torch.e).abs().squeeze()

    assert 1.9 < error(100) / error(200) < 2.1


def test_heun_quarters_its_error_when_its_steps_double() -> None:
    def error(steps: int) -> Tensor:  # of x' = x from 1, which ends at e
        end = heun(lambda x, step: x, torch.ones(1, 1).double(), uniform_times(steps))
        return (end - torch.e).abs().squeeze()

    assert 3.8 < error(100) / error(200) < 4.2


def test_heun_follows_a_velocity_that_changes_with_time() -> None:
    def error(steps: int) -> float:  # of x' = 3 t^2 from 0, which ends at 1
        def velocity(x: Tensor, step: int) -> Tensor:
            return torch.full_like(x, 3 * (step / steps) ** 2)

        return (1 - heun(velocity, torch.zeros(1, 1).double(), uniform_times(steps))).abs().item()

    assert 3.8 < error(100) / error(200) < 4.2


def test_heun_never_asks_for_a_velocity_at_the_end() -> None:
    seen: list[int] = []

    def velocity(x: Tensor, step: int) -> Tensor:
        seen.append(step)
        return x

    heun(velocity, torch.zeros(1, 1), uniform_times(3))
    assert seen == [0, 1, 1, 2, 2]


def test_euler_tells_the_number_of_the_step() -> None:
    seen: list[int] = []

    def velocity(x: Tensor, step: int) -> Tensor:
        seen.append(step)
        return x

    euler(velocity, torch.zeros(1, 1), uniform_times(3))
    assert seen == [0, 1, 2]


def test_a_guidance_scale_of_one_is_off_and_two_doubles_the_difference() -> None:
    conditional, unconditional = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(
        guide(conditional, unconditional, 2.0), 2 * conditional - unconditional
    )


def test_timesteps_lie_in_the_open_interval_and_favour_the_middle() -> None:
    t = logit_normal_timesteps(10_000, 0.0, torch.device("cpu"))
    assert t.min() > 0 and t.max() < 1
    middle = ((t > 0.25) & (t < 0.75)).float().mean().item()
    assert abs(middle - 0.728) < 0.02  # P(|N(0, 1)| < ln 3)


def test_a_location_below_zero_favours_noise() -> None:
    t = logit_normal_timesteps(10_000, -2.0, torch.device("cpu"))
    assert abs((t < 0.5).float().mean().item() - 0.977) < 0.01  # P(N(0, 1) < 2)


def test_a_density_is_that_of_the_drawn_timesteps() -> None:
    t = (torch.arange(100_000).double() + 0.5) / 100_000
    density = logit_normal_density(t, -2.0, scale=0.8)
    assert density.mean().item() == pytest.approx(1, abs=1e-4)
    drawn = logit_normal_timesteps(200_000, -2.0, torch.device("cpu"), scale=0.8)
    for power in (1, 2, 3):
        expected = (density * t**power).mean().item()
        assert drawn.pow(power).mean().item() == pytest.approx(expected, rel=0.05)
    for scale in (1.0, 5.0):
        assert logit_normal_density(torch.tensor([0.0, 1.0]), -2.0, scale).tolist() == [0, 0]


def test_a_shift_divides_the_noise_ratio_and_keeps_both_ends() -> None:
    assert (shifted(0.0, 0.5), shifted(1.0, 0.5), shifted(0.3, 1.0)) == (0.0, 1.0, 0.3)
    for t, shift in ((0.2, 0.5), (0.7, 3.0)):
        moved = shifted(t, shift)
        assert moved / (1 - moved) == pytest.approx(t / (1 - t) / shift)
