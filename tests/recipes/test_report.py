"""Result files: what each kind must say, and one page of whatever they hold."""

import copy
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recipes import report
from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.lines import Lines
from recipes.engine.result_kinds import check_result, kind_of, lacking, write_result
from recipes.engine.results import provenance
from recipes.figures import Measured, figures_in, in_words
from recipes.protocol import shared_protocol

RESULTS = Path(__file__).parents[2] / "recipes/results"
EVIL = "<script>alert('x')</script>"


def evaluation(**changes: Any) -> dict[str, Any]:
    """A whole evaluation, as `recipes.evaluate` writes one."""
    counts = {"split": "test", "images": 9, "captions": 18, "dataset": "abc"}
    told = {"dtype": "float32", "ties": "expected", "rerank": 0, "templates": [], "tasks": []}
    told |= {"intervals": None}
    psnr = {"1": 20.0, "2": 22.5, "16": 30.0}
    return {
        "results": {"separate": {"reconstruction": {"psnr": psnr}, "order": {"leak": 0.25}}},
        "orderers": {},
        "protocol": {**counts, **told},
        "config": {},
        "seeds": [0],
        **provenance(),
        **changes,
    }


def reported(*folders: Path, out: Path) -> str:
    start(
        report.main, report.Config, [*with_words([*map(str, folders), f"--out={out}"], "folders")]
    )
    return out.read_text()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        start(report.main, report.Config, with_words(arguments, "folders"))
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=str)
def test_every_kept_result_is_whole_for_its_age(path: Path) -> None:
    data = json.loads(path.read_text())
    check_result(data, path)
    assert kind_of(data, path) is not None


def test_a_missing_field_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path, whole = tmp_path / "evaluation.json", evaluation()
    write_result(path, "evaluation", whole)
    before = path.read_text()
    assert json.loads(before)["kind"] == "evaluation" and not lacking(json.loads(before), path)
    for name in ("commit", "versions", "seeds", "orderers", "protocol"):
        less = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(ValueError, match=rf"kind evaluation, it lacks {name}"):
            write_result(path, "evaluation", less)
    for name in whole["protocol"]:
        less = copy.deepcopy(whole)
        del less["protocol"][name]
        with pytest.raises(ValueError, match=rf"it lacks protocol\.{name}$"):
            write_result(path, "evaluation", less)
    assert path.read_text() == before


def test_a_mean_over_seeds_must_say_how_sure_it_is() -> None:
    unsure = {"ours": {"PSNR": {"1": {"mean": 20.0, "low": 19.0}}}}
    older = {name: "" for name in ("config", "commit", "versions", "hardware", "command", "date")}
    with pytest.raises(ValueError, match=r"it lacks results\.ours\.PSNR\.1\.high"):
        check_result({**older, "results": unsure}, Path("heads.json"))


def test_runs_measured_alike_share_a_protocol_and_others_say_where_they_differ(
    tmp_path: Path,
) -> None:
    for run, dataset in (("a-0", "abc"), ("b-0", "def")):
        (tmp_path / run).mkdir()
        protocol = {"split": "test", "dataset": dataset}
        (tmp_path / run / "evaluation.json").write_text(json.dumps({"protocol": protocol}))
    found = shared_protocol([tmp_path / "a-0", tmp_path / "b-0"])
    assert found == {"split": "test", "dataset": {"a-0": "abc", "b-0": "def"}}


def test_runs_whose_rates_were_taken_otherwise_are_not_compared(tmp_path: Path) -> None:
    for run, rate in (("a-0", {"images": 9}), ("b-0", {"images": 9, "guesses": "the better"})):
        (tmp_path / run).mkdir()
        protocol = {"split": "test", "rate": rate}
        (tmp_path / run / "evaluation.json").write_text(json.dumps({"protocol": protocol}))
    with pytest.raises(
        ValueError, match=r"b-0 was measured otherwise than a-0: rate is .*; remove"
    ):
        shared_protocol([tmp_path / "a-0", tmp_path / "b-0"])


def test_figures_are_found_wherever_they_lie() -> None:
    tree = {
        "psnr": {"1": 20.0, "16": 30.0},
        "retrieval": {"text_to_image": {"1": {"r1": 0.5, "r5": 0.75}, "2": {"r1": 1.0}}},
        "deviations": [1.0, 0.9],
        "leak": {"mean": 0.5, "low": 0.25, "high": 0.75, "seeds": [0.5]},
        "scores": [{"1": 0.1, "2": 0.2}],
        "layers": {"0": {"1": 0.5, "2": 0.6}},
        "judge": "who",
        "none": None,
        "is": True,
        "huge": 10**400,
    }
    found = {in_words(path): figure for path, figure in figures_in(tree)}
    one = Measured(value=1.0)
    assert found["psnr"] == {"1": Measured(value=20.0), "16": Measured(value=30.0)}
    assert found["retrieval, text to image, r1"] == {"1": Measured(value=0.5), "2": one}
    assert found["retrieval, text to image, r5"] == {"1": Measured(value=0.75)}
    assert found["deviations"] == {"1": one, "2": Measured(value=0.9)}
    assert str(found["leak"]) == "0.5 ± 0.25" and found["judge"] == "who"
    assert list(found["scores, no. 1"]) == list(found["layers, 0"]) == ["1", "2"]
    assert not {"none", "is", "huge"} & found.keys()


def test_all_kept_results_become_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    page = reported(RESULTS, out=tmp_path / "report.html")
    for wanted in ("last_only", "flow_uniform", "rank correlation", "GFLOP/s of one core", "PSNR"):
        assert wanted in page
    assert "<polyline" in page and "it lacks" in page and "http" not in page.split("<body>")[1]
    tables = (tmp_path / "report.md").read_text()
    assert "| ours      | 15.46 ± 0.17 |" in tables and "## " in tables
    assert page.count("<h2>") == len(list(RESULTS.rglob("*.json")))


class Tags(HTMLParser):
    """Counts the tags of a page, and hopes for no script."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_hostile_texts_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    tree = {EVIL: {EVIL: {"1": 2.0, "2": 3.0}, "said": EVIL, "onload=x": 1.0}}
    protocol = {**evaluation()["protocol"], "split": EVIL, "images": {EVIL: 1}}
    data = evaluation(results=tree, command=EVIL, versions={EVIL: EVIL}, protocol=protocol)
    (tmp_path / "evaluation.json").write_text(json.dumps(data))
    page = reported(tmp_path, out=tmp_path / "report.html")
    parser = Tags()
    parser.feed(page)
    assert "script" not in parser.seen and "&lt;script&gt;" in page


def test_shapes_that_nobody_expects_still_become_a_page(tmp_path: Path) -> None:
    odd = {
        "a": {},
        "b": {"1": None},
        "c": [],
        "d": [[1, [2]]],
        "e": {"nan": 1.0},
        "f": {"1e999": 2},
    }
    for number, results in enumerate(({}, {"x": odd}, {"x": {"curve": {"1": 1e299, "2": -1e299}}})):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "evaluation.json"
        path.write_text(json.dumps(evaluation(results=results, versions=None)))
    assert "nan%" not in reported(tmp_path, out=tmp_path / "report.html")


def test_what_is_no_result_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(RESULTS / "bench-data.json", tmp_path / "bench-data.json")
    for number in range(7):
        (tmp_path / f"{number}.json").write_text("{}")
    reported(tmp_path, out=tmp_path / "report.html")
    said = capsys.readouterr().out
    assert f"left out, no results: {tmp_path}/0.json, " in said and "/4.json and 2 more\n" in said
    for number in range(7):
        (tmp_path / f"{number}.json").unlink()
    (tmp_path / "config.json").write_text("{}")
    page = reported(tmp_path, out=tmp_path / "report.html")
    assert f"left out, no results: {tmp_path}/config.json\n" in capsys.readouterr().out
    assert f"Left out, no results: {tmp_path}/config.json." in page and "open_1000_shards" in page


def test_bad_input_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"there is no folder {tmp_path}/none" in refused(capsys, f"{tmp_path}/none")
    assert "there are no result files in" in refused(capsys, str(tmp_path))
    assert "out must end in .html, got a.pdf" in refused(capsys, str(tmp_path), "--out=a.pdf")
    path = tmp_path / "evaluation.json"
    for text in ("{", "[" * 100_000, '{"a": ' + "9" * 5_000 + "}"):
        path.write_text(text)
        assert f"{path} is no JSON that can be read" in refused(capsys, str(tmp_path))
    whole = evaluation()
    del whole["commit"]
    path.write_text(json.dumps(whole))
    assert "of the kind evaluation, it lacks commit" in refused(capsys, str(tmp_path))
    assert not Path("report.html").exists()


def test_lines_fill_the_chart_and_intervals_count() -> None:
    same = Lines(title="t", lines={"a": {"1": (2.0, 2.0, 2.0), "2": (2.0, 2.0, 2.0)}}).html()
    assert 'points="25.00,50.00 75.00,50.00"' in same
    html = Lines(title="t", lines={"a": {"1": (2.0, 1.0, 3.0), "10": (3.0, 3.0, 3.0)}}).html()
    assert 'points="25.00,50.00 75.00,0.00"' in html and "M25.00 100.00V0.00" in html
    with pytest.raises(ValueError, match="the chart 't' has no points"):
        Lines(title="t", lines={"a": {}})
