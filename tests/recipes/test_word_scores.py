"""Word overlap: the same is all, nothing shared is nothing, and any true caption will do."""

import pytest

from recipes.word_scores import word_scores

TRUE = [["a red ring on a dark ground", "One red ring"], ["a small blue moon at the left"]]


def test_a_true_caption_scores_all_whichever_and_however_written() -> None:
    written = ["A RED RING on a dark ground", TRUE[1][0]]
    assert word_scores(written, TRUE) == pytest.approx({"bleu": 100, "chrf": 100})


def test_captions_that_share_no_letter_score_nothing() -> None:
    found = word_scores(["xyz", "xyz"], TRUE)
    assert found["bleu"] < 1 and found["chrf"] < 1


def test_the_nearer_scores_more() -> None:
    near = word_scores(["a red ring on a dark wall", TRUE[1][0]], TRUE)
    far = word_scores(["a ring", "a moon at the right"], TRUE)
    for name in ("bleu", "chrf"):
        assert 0 <= far[name] < near[name] < 100
