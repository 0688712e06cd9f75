"""The hub, on a small server of this machine: push, pin, load, and refusals in a sentence."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from orderer import Orderer
from recipes import evaluate, push_to_hub
from recipes.engine.cli import run as start
from recipes.experiment import Experiment

ROOT = Path(__file__).parents[2]
REPO = "somebody/some-orderer"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: commits of whole files, and the names that point to them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.fails = False

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = files
        self.refs |= dict.fromkeys(refs, sha)
        return sha

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Visit(BaseHTTPRequestHandler):
    """What of the hub's protocol an upload and a download need."""

    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        if self.server.fails:
            self.refuse(500, "")
        elif path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/{REPO}"})
        elif path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            modes = [{"path": each["path"], "uploadMode": "regular"} for each in asked]
            self.answer({"files": [{**each, "shouldIgnore": False} for each in modes]})
        elif "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            new = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            before = self.server.commits.get(self.server.refs.get("main", ""), {})
            sha = self.server.commit({**before, **new}, "main")
            self.answer({"commitUrl": f"{self.server.url}/{REPO}/commit/{sha}", "commitOid": sha})
        elif "/tag/" in path:
            self.server.refs[json.loads(body)["tag"]] = path.rpartition("/")[2]
            self.answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/control/"):
            self.control(*path.split("/")[2:])
        elif self.server.fails:
            self.refuse(500, "")
        elif REPO not in path:
            self.refuse(404, "RepoNotFound")
        else:
            self.show(path.removeprefix("/api/models").removeprefix(f"/{REPO}"))

    def control(self, what: str, ref: str = "", sha: str = "") -> None:
        """Lets a program fail the server, or move a name to another commit."""
        if what == "move":
            self.server.refs[ref] = sha
        self.server.fails = what == "fail"
        self.answer({})

    def show(self, path: str) -> None:
        what, _, rest = path.lstrip("/").partition("/")
        revision, _, file = rest.partition("/")
        sha = self.server.refs.get(revision or "main", revision)
        files = self.server.commits.get(sha)
        if files is None:
            self.refuse(404, "RevisionNotFound")
        elif what in ("", "revision"):
            self.answer({"id": REPO, "sha": sha, "siblings": [{"rfilename": f} for f in files]})
        elif what == "tree":
            blobs = [{"path": f, "size": len(data)} for f, data in files.items()]
            self.answer([{**blob, "type": "file", "oid": blob["path"]} for blob in blobs])
        elif what == "resolve" and file in files:
            etag = hashlib.sha256(files[file]).hexdigest()
            self.send({"ETag": f'"{etag}"', "X-Repo-Commit": sha}, files[file])
        else:
            self.refuse(404, "EntryNotFound")

    def answer(self, value: object) -> None:
        self.send({"Content-Type": "application/json"}, json.dumps(value).encode())

    def refuse(self, status: int, code: str) -> None:
        self.send({"X-Error-Code": code}, b"", status)

    def send(self, headers: dict[str, str], body: bytes, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def online(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that knows this hub alone, and has fetched nothing yet."""
    return {
        **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        "HF_TOKEN": "a token",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def started(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def models(trained: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained orderer and AR model, measured."""
    out = tmp_path_factory.mktemp("models")
    for part in ("orderer", "ar"):
        shutil.copytree(trained.out / part, out / part)
    tasks = replace(trained.evaluation, tasks=("retrieval", "reconstruction"))
    evaluate.main(replace(trained, out=out, evaluation=tasks))
    return out


@pytest.fixture(scope="module")
def pushed(hub: Hub, models: Path, online: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (models / "hub").mkdir()
    (models / "hub" / "training.bin").write_bytes(b"left by something else")
    options = ("--license=apache-2.0", "--datasets=[somebody/scenes]", "--tag=v1")
    return started(
        online, "-m", "recipes.push_to_hub", f"--models={models}", f"--repo={REPO}", *options
    )


@pytest.fixture(scope="module")
def card(pushed: Any, hub: Hub) -> str:
    return hub.commits[hub.refs["v1"]]["README.md"].decode()


def test_a_push_uploads_models_card_and_pictures_and_nothing_else(pushed: Any, hub: Hub) -> None:
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.splitlines()[-1] == f"{REPO} is at commit {hub.refs['main']}"
    assert hub.refs["v1"] == hub.refs["main"]
    assert sorted(hub.commits[hub.refs["v1"]]) == [
        "README.md",
        "ar/config.json",
        "ar/model.safetensors",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "psnr.png",
        "retrieval.png",
    ]


def test_the_card_has_metadata_that_a_hub_reads(card: str, models: Path) -> None:
    about = yaml.safe_load(card.split("---")[1])
    assert about["library_name"] == "sightline" and about["license"] == "apache-2.0"
    assert about["pipeline_tag"] == "image-feature-extraction"
    assert about["datasets"] == ["somebody/scenes"]
    (model,) = about["model-index"]
    assert model["name"] == "some-orderer"
    metrics = [metric for result in model["results"] for metric in result["metrics"]]
    found = json.loads((models / "evaluation.json").read_text())["results"]["separate"]
    recall = found["retrieval"]["text_to_image"]["4"]["r1"]
    named = {metric["name"]: metric["value"] for metric in metrics}
    assert named["R@1 text to image, first 4 tokens"] == recall


def test_the_card_says_how_to_load_and_what_it_was_made_with(card: str, models: Path) -> None:
    assert f'Orderer.from_pretrained("{REPO}", revision="v1")' in card
    assert f'ARModel.from_pretrained("{REPO}", revision="v1", subfolder="ar")' in card
    assert Orderer.from_pretrained(models / "orderer").encoding_hash() in card
    for said in (
        "![retrieval by prefix](retrieval.png)",
        "ties: expected rank",
        "seeds:",
        "torch:",
    ):
        assert said in card


SCRIPT = """
import json, sys
from pathlib import Path
from urllib.request import urlopen
from ar import ARModel
from orderer import Orderer, OrdererProcessor
from recipes import index, search_index

url, repo, out = sys.argv[1:4]

def control(*words):
    return urlopen("/".join([url, "control", *words])).status

def made(revision):
    config = index.Config(models=repo, revision=revision, count=8, split="val", out=Path(out))
    index.main(config)
    return json.loads(Path(out, "index.json").read_text())["orderer"]

def found(revision):
    search_index.main(search_index.Config(
        models=repo, revision=revision, index=Path(out), texts=("a red ring",), count=2
    ))

for step in json.loads(sys.argv[4]):
    try:
        result = eval(step)
    except (ValueError, OSError) as error:
        result = f"{type(error).__name__}: {error}"
    print("=" + json.dumps(result))
"""


def did(environment: dict[str, str], hub: Hub, out: Path, *steps: str) -> list[Any]:
    """Evaluate expressions in a program of their own; a refusal is a sentence."""
    done = started(environment, "-c", SCRIPT, hub.url, REPO, str(out), json.dumps(steps))
    assert done.returncode == 0, done.stderr
    return [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("=")]


@pytest.fixture(scope="module")
def others(pushed: Any, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Commits beside the pushed one: of other weights, of a pickle, of code."""
    files = hub.commits[hub.refs["v1"]]
    folder = tmp_path_factory.mktemp("others")
    (folder / "a").write_bytes(files["model.safetensors"])
    tensors = load_file(folder / "a")
    tensors["encoder.queries"] += 1
    save_file(tensors, folder / "b", metadata={"format": "pt"})
    settings = json.loads(files["config.json"])
    pickled = {name: data for name, data in files.items() if name != "model.safetensors"}
    code = {"auto_map": {"AutoModel": "evil.Model"}}
    return {
        "changed": hub.commit({**files, "model.safetensors": (folder / "b").read_bytes()}),
        "pickle": hub.commit({**pickled, "pytorch_model.bin": b"\x80\x02"}, "pickle"),
        "code": hub.commit(
            {**files, "config.json": json.dumps(settings | code).encode(), "evil.py": b"1/0"},
            "code",
        ),
    }


def test_what_was_pushed_is_loaded_by_a_pinned_revision(
    pushed: Any, models: Path, hub: Hub, online: dict[str, str], others: Any, tmp_path: Path
) -> None:
    sha, own = hub.refs["v1"], Orderer.from_pretrained(models / "orderer").encoding_hash()
    load = 'Orderer.from_pretrained(repo, revision="{}").{}'
    steps = [
        load.format("v1", "encoding_hash()"),
        load.format("v1", "saved.origin()"),
        load.format(sha, "saved.commit"),
        'OrdererProcessor.from_pretrained(repo, revision="v1").image_size',
        'ARModel.from_pretrained(repo, revision="v1", subfolder="ar").config.orderer_hash',
        'made("v1")',
        'found("v1")',
        f'control("move", "v1", "{others["changed"]}")',
        'found("v1")',
        f'found("{sha}")',
    ]
    results = did(online, hub, tmp_path / "index", *steps)
    size = json.loads((models / "orderer/preprocessor_config.json").read_text())["image_size"]
    assert results[:5] == [own, {"name": REPO, "commit": sha}, sha, size, own]
    assert results[5] == {"name": REPO, "commit": sha}
    assert results[6] is None and results[9] is None
    assert results[8].startswith(f"ValueError: this index was made by another orderer, {REPO}")
    hub.refs["v1"] = sha


def test_what_a_hub_does_not_give_is_refused_in_a_sentence(
    pushed: Any, hub: Hub, online: dict[str, str], others: Any, tmp_path: Path
) -> None:
    online = {**online, "HF_HOME": str(tmp_path / "hf")}
    steps = [
        'Orderer.from_pretrained(repo, revision="v9")',
        'OrdererProcessor.from_pretrained(repo, revision="v9")',
        'Orderer.from_pretrained("nobody/nothing")',
        'Orderer.from_pretrained("no name at all")',
        'Orderer.from_pretrained(repo, revision="pickle")',
        'Orderer.from_pretrained(repo, revision="code")',
        "Orderer.from_pretrained(repo, trust_remote_code=True)",
        'control("fail")',
        "Orderer.from_pretrained(repo)",
        'control("mend")',
    ]
    results = did(online, hub, tmp_path, *steps)
    none = f"OSError: no model can be read from {REPO}: "
    assert results[0] == f"{none}it has no revision 'v9'"
    assert results[1] == f"OSError: no processor can be read from {REPO}: it has no revision 'v9'"
    assert results[2].endswith("the hub has or shows nothing of this name")
    assert results[3].endswith("it is no folder, and no name of a hub's repository, OWNER/NAME")
    assert results[4].startswith(f"ValueError: {REPO} has its weights in pytorch_model.bin")
    assert results[4].endswith("python -m recipes.convert_weights")
    assert results[5].endswith("asks for code of its own (auto_map), which is never run")
    assert results[6] == "ValueError: Orderer runs no code of a model's own, got trust_remote_code"
    assert results[8].startswith(f"{none}the hub cannot be reached, ") and "500" in results[8]
    fetched = [path.name for path in (tmp_path / "hf").rglob("*")]
    assert "config.json" in fetched
    assert not {"evil.py", "pytorch_model.bin"} & set(fetched)


def test_what_was_fetched_is_there_offline_and_nothing_else(
    pushed: Any, hub: Hub, online: dict[str, str], tmp_path: Path
) -> None:
    environment = {**online, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    (said,) = did(environment, hub, tmp_path, "Orderer.from_pretrained(repo)")
    assert said == (
        f"OSError: no model can be read from {REPO}: it is no folder, it was not fetched before, "
        "and HF_HUB_OFFLINE forbids to ask"
    )


def test_a_card_of_other_models_is_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "models"
    shutil.copytree(models, copied, ignore=shutil.ignore_patterns("hub"))
    model = Orderer.from_pretrained(copied / "orderer")
    with torch.no_grad():
        model.encoder.queries += 1
    model.save_pretrained(copied / "orderer")
    shutil.rmtree(copied / "ar")
    words = [f"--models={copied}", f"--repo={REPO}", "--license=mit", "--dry_run"]
    with pytest.raises(SystemExit, match="2"):
        start(push_to_hub.main, push_to_hub.Config, words)
    said = capsys.readouterr().err
    assert "evaluation.json measures the orderer" in said
    assert "run python -m recipes.evaluate again" in said
