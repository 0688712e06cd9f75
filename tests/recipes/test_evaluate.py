"""Evaluation: the tasks stand before the options, and each measures what it says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ar import ARModel, Sampling
from data.scenes import GROUNDS, SHAPES, load_scenes
from orderer import Orderer, OrdererConfig, OrdererProcessor
from recipes import evaluate, judging, searching, train_orderer
from recipes.completion import check_completes, given_of
from recipes.conditions import condition_on
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.engine.settings import plain_settings
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.finding import embed_captions, embeddings_at_prefixes
from recipes.generation import Drawer
from recipes.judging import check_judge, make_judge
from recipes.protocol import decoding
from recipes.questions import facts
from recipes.training_record import digest_of_record, read_record


@pytest.fixture
def copied(trained: Experiment, tmp_path: Path) -> Experiment:
    """The models alone, of stages 1 and 2."""
    for model in ("orderer", "ar"):
        shutil.copytree(trained.out / model, tmp_path / "run" / model)
    return replace(trained, out=tmp_path / "run")


def measured(experiment: Experiment, *words: str) -> Any:
    path = experiment.out / "experiment.yaml"
    path.write_text(yaml.safe_dump(plain_settings(experiment)))
    start(evaluate.main, Experiment, evaluate.with_tasks([*words, "--config", str(path)]))
    return json.loads((experiment.out / "evaluation.json").read_text())


def test_words_before_the_options_are_the_tasks() -> None:
    assert evaluate.with_tasks(["retrieval", "generation", "--out=x"]) == [
        "--out=x",
        '--evaluation.tasks=["retrieval", "generation"]',
    ]
    assert evaluate.with_tasks(["--out", "x"]) == ["--out", "x"]
    assert evaluate.with_tasks([]) == []


def test_one_task_measures_one_thing(copied: Experiment) -> None:
    found = measured(copied, "retrieval")["results"]
    assert list(found) == ["separate"] and list(found["separate"]) == ["retrieval", "unseen"]
    found = measured(copied, "reconstruction")["results"]["separate"]
    assert list(found) == ["reconstruction", "order", "unseen"]
    assert list(found["unseen"]) == ["reconstruction", "order"]


def test_retrieval_needs_no_ar_model(copied: Experiment) -> None:
    shutil.rmtree(copied.out / "ar")
    assert measured(copied, "retrieval")["results"]["separate"]["retrieval"]


def test_the_models_of_stage_three_are_measured_beside_the_others(trained: Experiment) -> None:
    assert list(measured(trained, "retrieval")["results"]) == ["separate", "joint"]


def test_queries_are_the_last_captions_or_all(copied: Experiment) -> None:
    last = measured(copied, "retrieval")["results"]["separate"]["retrieval"]
    assert list(last["shorter_captions"]) == ["0", "1", "2", "3"]
    every = replace(copied, evaluation=replace(copied.evaluation, captions="all"))
    found = measured(every, "retrieval")["results"]["separate"]["retrieval"]
    assert "shorter_captions" not in found and found != last


def test_where_there_is_no_other_judge_the_orderer_judges(copied: Experiment) -> None:
    itself = replace(copied, evaluation=Evaluation(judge="retrieval", generated=16))
    found = measured(itself, "generation")["results"]["separate"]["generation"]
    assert 0 <= found["found_at_1"] <= found["found_at_10"] < 1  # of 16 images
    assert found["real"]["found_at_10"] > found["real"]["found_at_1"]


def test_images_are_completed_from_their_own_tokens(
    copied: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, float, bool]] = []
    draw = Drawer.draw

    def seen(self: Drawer, captions: Any, how: Sampling, first: Any = None) -> torch.Tensor:
        tokens = draw(self, captions, how, first)
        begun = tokens[:, : first.shape[1]]
        drawn.append((first.shape[1], how.guidance_scale, torch.allclose(begun, first, atol=1e-4)))
        return tokens

    monkeypatch.setattr(Drawer, "draw", seen)
    evaluation = replace(copied.evaluation, guidance_scales=(2.0,), generated=8)
    unguided = replace(copied.sampling, guidance_scale=1.0)
    asked = replace(copied, evaluation=evaluation, sampling=unguided)
    found = measured(asked, "completion")
    counts = [1, 2, 4, 8, 15]
    assert drawn == [(k, scale, True) for scale in (1.0, 2.0) for k in counts]
    assert found["protocol"]["generated"] == 8
    by_guidance = found["results"]["separate"]["completion"]
    assert {scale: list(map(int, of)) for scale, of in by_guidance.items()} == dict.fromkeys(
        ("1", "2"), counts
    )
    assert all(0 <= each["colour"] <= 1 for of in by_guidance.values() for each in of.values())
    assert [given_of(tokens) for tokens in (1, 2, 5)] == [[], [1], [1, 2, 4]]


def test_guidance_by_what_a_model_never_learned_without_is_refused(
    copied: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied.out / "ar/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "context_drop": 0.0}))
    asked = replace(copied, evaluation=replace(copied.evaluation, context_scales=(3.0,)))
    assert "(ar.context_drop above 0), got context_scale 3" in refusal(asked, capsys, "generation")


def test_a_model_of_random_orders_completes_nothing(copied: Experiment) -> None:
    model = ARModel.from_pretrained(copied.out / "ar")
    model.config.order = "random"
    with pytest.raises(ValueError, match="of the tokens' own order, got one of random ones"):
        check_completes(model)


def test_a_search_is_measured_by_what_it_draws(
    copied: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "CANDIDATES", (2, 4))
    results = measured(copied, "search", "generation")
    found, drawn = (results["results"]["separate"][task] for task in ("search", "generation"))
    assert results["protocol"]["search"]["candidates"] == [1, 2, 4]
    tokens = {
        method: [of_one[n]["tokens"] for n in ("1", "2", "4")]
        for method, of_one in found["by_method"].items()
    }
    assert tokens["best of n"] == [16, 32, 64]
    assert tokens["narrowing beam"] == [16, 2 * 4 + 12, 4 * 4 + 12]
    assert tokens["beam"] == [16, 2 * 16, 4 * 16]
    assert 16 < tokens["early exit"][1] < tokens["early exit"][2] < 64
    for of_one in found["by_method"].values():  # without a search it is generation
        assert {name: of_one["1"][name] for name in ("shape", "place", "scene")} == {
            name: drawn[name] for name in ("shape", "place", "scene")
        }
    scores = [found["by_method"]["best of n"][n]["score"] for n in ("1", "2", "4")]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    pictures = copied.out / "pictures/separate"
    assert {"search_score.png", "search_colour_and_shape.png"} <= {
        path.name for path in pictures.iterdir()
    }


def test_an_ar_model_of_another_orderer_is_refused(trained: Experiment, copied: Experiment) -> None:
    shutil.rmtree(copied.out / "ar")
    shutil.copytree(trained.out / "joint/ar", copied.out / "ar")
    with pytest.raises(SystemExit):
        measured(copied, "generation")


def test_an_unknown_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        start(evaluate.main, Experiment, evaluate.with_tasks(["retrieval", "beauty"]))
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: evaluation.tasks must be ") and said.count("\n") == 1
    assert "beauty" in said


def test_a_judge_of_classes_knows_only_classes_it_has_seen(copied: Experiment) -> None:
    scenes = replace(copied, data=DataSettings(train_count=8, test_count=8))
    with pytest.raises(ValueError, match=r"the judge of classes is asked for '.*', but"):
        evaluate.main(replace(scenes, evaluation=Evaluation(judge="classes", captions="last")))


def test_a_fresh_reader_is_measured_where_the_own_readout_is(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_steps=2))
    found = measured(few, "retrieval", "probe")["results"]["separate"]
    assert list(found["probe"]["text_to_image"]) == list(found["retrieval"]["text_to_image"])
    assert found["probe"] != found["retrieval"]


def test_factors_of_scenes_are_read_at_every_prefix(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_scenes=90))
    factors = measured(few, "factors")["results"]["separate"]["factors"]
    assert set(factors) == {"shape", "colour", "size", "place", "count", "ground"}
    assert list(factors["shape"]["score"]) == ["1", "2", "4", "8", "16"]


def test_what_is_true_of_a_scene_goes_with_it_into_any_split() -> None:
    data = DataSettings(train_count=40, tuning_count=12, test="tuning", unseen=None)
    for pairs in (data.open_test(16), load_scenes("test", 12, 16)):
        found = facts(pairs)
        for i, of_one in enumerate(pairs.captions):
            assert [shape in of_one[0] for shape in SHAPES] == found["shape"][i].tolist()
            assert [ground in of_one[-1] for ground in GROUNDS] == found["ground"][i].tolist()


def test_a_judge_of_words_looks_for_those_of_the_caption_that_was_drawn(
    copied: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for = []
    monkeypatch.setattr(
        judging, "tag_precision", lambda net, images, wanted: looked_for.append(wanted) or 0.0
    )
    asked = replace(copied.evaluation, judge="words", judge_steps=1)
    experiment, pairs = replace(copied, evaluation=asked), copied.data.open_test(36)
    orderer, processor = evaluate._load(copied.out, torch.device("cpu"))
    for place in (0, -1):
        captions = [of_one[place] for of_one in pairs.captions]
        judge = make_judge(experiment, pairs, captions, orderer, processor)
        judge.score(pairs.images)
    bare, full = looked_for
    assert bare.sum() < full.sum() and bool((full | ~bare).all())


def test_labels_are_read_by_a_map_and_by_neighbours(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_scenes=90))
    result = measured(few, "labels")
    found = result["results"]["separate"]["labels"]
    assert result["protocol"]["labels"]["neighbours"] == 20
    for name in ("linear", "nearest"):
        assert list(found[name]["shape"]) == ["1", "2", "4", "8", "16"]
    assert found["linear"] != found["nearest"]


def test_a_model_in_train_mode_is_refused(tiny_orderer: Orderer) -> None:
    processor, said = OrdererProcessor(16, 40), ["a red ring"]
    tokens = torch.randn(2, 4, 6)
    embed_captions(said, tiny_orderer.text, processor, tokens.device)
    embeddings_at_prefixes(tokens, tiny_orderer.readout)
    tiny_orderer.train()
    sentence = "a model is measured in eval mode, .* is in train mode"
    with pytest.raises(ValueError, match=sentence):
        embed_captions(said, tiny_orderer.text, processor, tokens.device)
    with pytest.raises(ValueError, match=sentence):
        embeddings_at_prefixes(tokens, tiny_orderer.readout)


def test_factors_of_other_data_are_refused(copied: Experiment) -> None:
    other = replace(copied, data=replace(copied.data, source=("somewhere",)))
    with pytest.raises(SystemExit) as refused:
        measured(other, "factors")
    assert refused.value.code == 2


def refusal(experiment: Experiment, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence with which a measurement is refused, before anything is written."""
    with pytest.raises(SystemExit) as refused:
        measured(experiment, *words)
    assert refused.value.code == 2
    assert not (experiment.out / "evaluation.json").exists()
    assert not (experiment.out / "pictures").exists()
    return capsys.readouterr().err


def test_what_a_task_needs_is_asked_for_before_anything_is_measured(
    copied: Experiment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "understanding", None)  # nobody may come that far
    said = refusal(copied, capsys, "retrieval", "captioning")
    assert "the task captioning needs an orderer with fusion_layers, got null" in said
    reranked = replace(copied, evaluation=replace(copied.evaluation, rerank=4))
    said = refusal(reranked, capsys, "retrieval")
    assert "evaluation.rerank 4 needs an orderer with fusion_layers, got null" in said
    shutil.rmtree(copied.out / "ar")
    assert f"{copied.out}/ar is not a folder" in refusal(copied, capsys, "generation")


def test_fidelity_needs_images_a_network_and_enough(
    copied: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(copied, capsys, "fidelity", "likelihood")
    assert (
        "of generation, completion or reconstruction, evaluation.tasks has fidelity, likelihood"
        in said
    )
    own = replace(copied, evaluation=replace(copied.evaluation, judge="retrieval"))
    said = refusal(own, capsys, "generation", "fidelity")
    assert "among scenes, classes, words, got retrieval, or with that of evaluation.feat" in said
    said = refusal(copied, capsys, "generation", "fidelity")
    assert "needs at least 97 generated images, one more than features, got 8" in said
    words = replace(copied, evaluation=replace(copied.evaluation, judge="words"))
    said = refusal(words, capsys, "generation", "fidelity")
    assert "needs at least 129 generated images, one more than features, got 8" in said


def test_likelihood_is_that_of_the_models_tokens(copied: Experiment) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, scored=4))
    result = measured(few, "likelihood")
    found = result["results"]["separate"]["likelihood"]
    assert found["images"] == result["protocol"]["likelihood"]["images"] == 4
    assert len(found["at"]) == 16 and sum(found["at"]) / 16 == pytest.approx(found["nats"])
    assert found["bits"] == pytest.approx(found["nats"] / 0.6931472)
    orderer, processor = evaluate._load(few.out, torch.device("cpu"))
    model = ARModel.from_pretrained(few.out / "ar").eval()
    pairs = few.data.open_test(36)
    condition = condition_on([said[-1] for said in pairs.captions[:4]], model, orderer, processor)
    tokens = orderer.encode(pairs.images[:4])
    noise = torch.Generator().manual_seed(0)
    expected = model.log_prob(tokens, condition, generator=noise).mean() / 64
    assert found["nats"] == pytest.approx(expected.item(), rel=1e-3)


def test_a_rate_rises_with_the_quality_that_it_pays_for(copied: Experiment) -> None:
    some = replace(copied.evaluation, scored=8, probe_scenes=100)
    result = measured(replace(copied, evaluation=some), "rate")
    found = result["results"]["separate"]["rate"]
    at = {float(noise): each for noise, each in found["at_noise"].items()}
    assert 0 < at[0.5]["nats"] < at[0.05]["nats"]
    assert all(0 < each["nats"] <= each["gaussian"] for each in at.values())
    assert at[0.05]["psnr"] >= at[0.5]["psnr"] - 0.5
    white = {float(noise): each for noise, each in found["white"].items()}
    assert at[0.5]["together"] < at[0.05]["together"] and white[0.5]["nats"] < white[0.05]["nats"]
    assert found["images"] == result["protocol"]["rate"]["images"] == 8
    assert 1 <= found["participation_rank"] <= found["entropy_rank"] <= 8


def test_a_trunk_is_read_after_every_layer_and_prefix(copied: Experiment) -> None:
    some = replace(copied, evaluation=replace(copied.evaluation, probe_scenes=200))
    result = measured(some, "trunk")
    found = result["results"]["separate"]["trunk"]
    assert result["protocol"]["trunk"]["images"] == 200
    near = result["results"]["separate"]["trunk_nearest"]
    assert list(near) == list(found)
    for layers in (*found.values(), *near.values()):
        assert list(layers) == ["0", "1"]  # the embeddings, and after the only layer
        for at in layers.values():
            assert list(at) == ["1", "2", "4", "8", "15"]  # no trunk learns to read the last token
            assert all(-1 <= score <= 1 for score in at.values())


def test_generated_tokens_have_their_deviations_and_other_guidance_its_own(
    copied: Experiment,
) -> None:
    scales = {"guidance_scales": (1.0, 4.0), "context_scales": (3.0,)}
    evaluation = replace(copied.evaluation, **scales)
    found = measured(replace(copied, evaluation=evaluation), "generation")
    generation = found["results"]["separate"]["generation"]
    own = f"{copied.sampling.guidance_scale:g}"
    by_context = {f"{scale}, context 3" for scale in (own, "1", "4")}
    guided = generation["guided"]
    assert len(generation["deviations"]) == 16 and set(guided) == {"1", "4"} | by_context
    spreads = [tuple(each["deviations"]) for each in (generation, *guided.values())]
    assert len(set(spreads)) == 6
    for name in ("4", "4-context-3"):
        assert (copied.out / f"pictures/separate/generated-{name}.png").is_file()


def test_the_protocol_says_how_each_task_was_done_and_nothing_of_others(
    copied: Experiment,
) -> None:
    few = replace(copied, evaluation=replace(copied.evaluation, probe_steps=2, probe_scenes=90))
    protocol = measured(few, "probe", "factors")["protocol"]
    assert protocol["tasks"] == ["probe", "factors"] and protocol["tuning_count"] == 0
    assert protocol["generated"] is None and protocol["decoder"] == {"kind": "deterministic"}
    assert protocol["probe"]["steps"] == 2 and protocol["probe"]["batch_size"] == 16
    assert protocol["probe"]["seed"] == 0 and protocol["probe"]["split"] == "train"
    assert protocol["factors"] == {"fit": {"split": "judge", "scenes": 90}}
    protocol = measured(few, "retrieval")["protocol"]
    assert protocol["probe"] is None and protocol["factors"] is None


def test_a_flow_decoder_says_how_it_was_solved() -> None:
    flow = OrdererConfig(decoder="flow", decoder_steps=3, decoder_solver="euler")
    assert decoding(flow) == {
        "kind": "flow",
        "solver": "euler",
        "steps": 3,
        "guidance_scale": 1.0,
    }


def test_the_tuning_split_is_that_of_the_training(
    tiny: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = replace(tiny.data, tuning_count=8, test="tuning", unseen=None)
    apart = replace(tiny, data=data, out=tmp_path / "run")
    train_orderer.main(apart)
    for change, sentence in (
        ({"tuning_count": 9}, "data.tuning_count was 8, got 9"),
        ({"train_count": 65}, "data.train_count was 64, got 65"),
        ({"train": "val"}, "data.train was train, got val"),
        ({"source": ("scenes_ground_first",)}, "those were "),
    ):
        other = replace(apart, data=replace(data, **change))
        assert sentence in refusal(other, capsys, "retrieval")
    said = refusal(apart, capsys, "generation")
    assert f"{apart.out}/ar is not a folder" in said
    assert measured(apart, "retrieval")["protocol"]["images"] == 8
    (apart.out / "evaluation.json").unlink()
    (apart.out / "orderer/training.json").unlink()
    said = refusal(apart, capsys, "retrieval")
    assert "without the pairs of the split tuning, it has no training.json of stage 1" in said


def test_the_judge_of_scenes_knows_none_of_the_tuning_split(tiny: Experiment) -> None:
    data = replace(tiny.data, tuning_count=8, test="tuning", unseen=None)
    with pytest.raises(ValueError, match="knows no scene of the split tuning"):
        check_judge(replace(tiny, data=data))


def test_the_judge_of_classes_sees_no_tuning_image(tiny: Experiment, tmp_path: Path) -> None:
    data = replace(tiny.data, tuning_count=8)
    classes = replace(tiny.evaluation, judge="classes", judge_steps=1)
    experiment = replace(tiny, out=tmp_path, data=data, evaluation=classes)
    pairs = data.open_test(36)
    judge = make_judge(experiment, pairs, [], None, None)  # type: ignore[arg-type]
    assert "trained on 56 real images" in judge.about


def test_a_training_leaves_its_settings_beside_its_weights(trained: Experiment) -> None:
    first = read_record(trained.out / "orderer")
    joint = read_record(trained.out / "joint/orderer")
    assert first is not None and joint is not None
    plain = plain_settings(trained)
    for name in ("data", "orderer", "train_orderer", "seed", "precision"):
        assert first["settings"][name] == plain[name]
    own = joint.pop("joint")
    assert joint == first and own["settings"]["train_joint"] == plain["train_joint"]
    assert own["pairs"] == first["pairs"] == trained.data.open_train(36).fingerprint


def test_another_training_has_another_digest_but_another_day_has_not(
    trained: Experiment, copied: Experiment
) -> None:
    record = read_record(trained.out / "orderer") or {}
    assert digest_of_record({**record, "made_with": {"date": "another"}}) == digest_of_record(
        record
    )
    assert digest_of_record({**record, "processes": 7}) != digest_of_record(record)
    found = measured(copied, "retrieval")["orderers"]["separate"]
    assert found["training_sha256"] == digest_of_record(record)
