"""An orderer that writes and matches, from its training to its figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orderer import Objectives, Orderer, OrdererProcessor
from recipes import evaluate, explain, train_orderer
from recipes.caption_quality import overlap
from recipes.data_settings import DataSettings
from recipes.experiment import Experiment


def with_fusion(tiny: Experiment, out: Path) -> Experiment:
    objectives = Objectives(text_from=0, text_ramp=1, captioning=0.5, matching=0.5)
    return replace(
        tiny,
        out=out,
        orderer={**tiny.orderer, "fusion_layers": 1},
        train_orderer=replace(tiny.train_orderer, objectives=objectives),
        evaluation=replace(tiny.evaluation, tasks=("retrieval", "captioning"), rerank=4),
    )


def test_a_trained_writer_is_measured_at_every_prefix(tiny: Experiment, tmp_path: Path) -> None:
    experiment = with_fusion(tiny, tmp_path / "run")
    train_orderer.main(experiment)
    config = Orderer.from_pretrained(experiment.out / "orderer").config
    assert config.caption_pieces is not None and len(config.caption_pieces) < 100
    processor = OrdererProcessor.from_pretrained(experiment.out / "orderer")
    known = set(config.caption_pieces)
    assert set(processor.text(["a red circle"])[0, 1:].tolist()) <= known

    evaluate.main(experiment)
    written = json.loads((experiment.out / "evaluation.json").read_text())
    assert written["protocol"]["rerank"] == 4
    found = written["results"]["separate"]
    at = found["retrieval"]["text_to_image"].keys()
    assert found["retrieval"]["reranked"]["text_to_image"].keys() == at
    for name in ("log_likelihood", "exact", "overlap", "bleu", "chrf", "written"):
        assert found["captioning"][name].keys() == at
    assert all(value < 0 for value in found["captioning"]["log_likelihood"].values())

    page = tmp_path / "explain.html"
    data = DataSettings(test_count=8, unseen=None)
    explain.main(
        explain.Config(
            models=experiment.out, data=data, shown=1, draws=1, probe_scenes=90, out=page
        )
    )
    assert page.read_text().count(">writes: ") == 5
    assert "log-likelihood of the caption" in page.read_text()


def test_without_fusion_nothing_is_ranked_again(trained: Experiment) -> None:
    asked = replace(trained, evaluation=replace(trained.evaluation, tasks=("retrieval",), rerank=4))
    with pytest.raises(ValueError, match="an orderer with fusion_layers, got null"):
        evaluate.main(asked)


def test_the_pieces_of_captions_are_not_set_by_hand(tiny: Experiment) -> None:
    by_hand = replace(tiny, orderer={**tiny.orderer, "fusion_layers": 1, "caption_pieces": [49407]})
    with pytest.raises(ValueError, match="caption_pieces follows from the captions"):
        by_hand.orderer_config()


def test_words_overlap_in_any_order_and_as_often_as_they_stand() -> None:
    assert overlap("a red ring", "ring red a") == 1
    assert overlap("a a a a", "a red ring") == pytest.approx(2 / 7)
    assert overlap("", "") == overlap("a", "") == 0
