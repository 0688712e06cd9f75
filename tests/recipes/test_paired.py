"""What is paired is of the same seed, and what is chosen had no say in its own choice."""

import random

import pytest

from recipes.paired import chosen, differences, figures

VALUES = {
    ("a", 0): {"nats": 1.0, "psnr": 20.0},
    ("a", 1): {"nats": 3.0},
    ("b", 0): {"nats": 2.0, "psnr": 21.0},
    ("b", 1): {"nats": 5.0, "psnr": 22.0},
}


def test_what_one_seed_lacks_is_left_out_whichever_it_is() -> None:
    assert list(figures(VALUES, "a", (0, 1))) == list(figures(VALUES, "a", (1, 0))) == ["nats"]
    assert list(figures(VALUES, "b", (0, 1))) == ["nats", "psnr"]
    assert list(differences(VALUES, "b", "a", (0, 1), lambda measure: 1)) == ["nats"]


def test_differences_are_taken_so_that_above_0_is_better() -> None:
    fewer = differences(VALUES, "a", "b", (0, 1), lambda measure: -1)["nats"]
    assert fewer["seeds"] == [1.0, 2.0] and fewer["mean"] == 1.5


def test_a_seed_has_the_option_that_the_others_choose() -> None:
    of_seeds = [{"1": 0.9, "2": 0.1}, {"1": 0.3, "2": 0.5}, {"1": 0.2, "2": 0.6}]
    assert chosen(of_seeds, 1) == [0.1, 0.3, 0.2]  # 2 for the first, 1 for the others by its luck
    assert chosen(of_seeds, -1) == [0.9, 0.5, 0.6]


def test_choosing_among_options_that_are_alike_gains_nothing_in_the_mean() -> None:
    random.seed(0)
    draws = [
        [{str(i): random.gauss(0, 1) for i in range(5)} for _ in range(3)] for _ in range(2000)
    ]
    fair = sum(sum(chosen(of_seeds, 1)) for of_seeds in draws) / 6000
    own = sum(max(each.values()) for of_seeds in draws for each in of_seeds) / 6000
    assert abs(fair) < 0.05 and own > 1


def test_a_seed_alone_chooses_for_itself() -> None:
    assert chosen([{"1": 0.9, "2": 0.1}], 1) == [0.9]
    assert chosen([{"1": 0.9, "2": 0.1}], -1) == [pytest.approx(0.1)]
