"""For every test: shapes checked, nothing downloaded, one thread, one seed; and two tiny models."""

# ruff: noqa: E402, I001  (what changes imports stands before them)

import os
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import

from jaxtyping import install_import_hook
from transformers import PreTrainedConfig

PreTrainedConfig.__no_type_check__ = True  # settings check themselves, and say so in a sentence
install_import_hook(["orderer", "ar", "data"], "beartype.beartype")

import orderer  # declares torchvision's operators, so it is first
import ar
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_orderer() -> orderer.Orderer:
    """4 tokens of 6 channels from images of 16 x 16."""
    config = orderer.OrdererConfig(
        image_size=16,
        patch_size=4,
        tokens=4,
        token_dim=6,
        width=16,
        heads=2,
        encoder_layers=2,
        decoder_layers=1,
        readout_layers=2,
        text_width=16,
        text_heads=2,
        text_layers=1,
        embed_dim=8,
    )
    return orderer.Orderer(config).eval()


@pytest.fixture
def tiny_ar() -> ar.ARModel:
    """Models 4 tokens of 6 channels, given the word embeddings of `tiny_orderer`."""
    config = ar.ARConfig(
        tokens=4,
        token_dim=6,
        condition="text",
        condition_dim=16,
        width=16,
        heads=2,
        layers=2,
        mlp_width=32,
        head_width=16,
        head_layers=2,
    )
    return awake(ar.ARModel(config)).eval()


def awake(model: ar.ARModel) -> ar.ARModel:
    """Give weights to the layers of the head that start at zero, where its output is always 0."""
    for layer in (model.head.net.modulate, model.head.net.to_token):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return model


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; below /to/ it sends its visitors to the URL that follows."""

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self) -> Any:
        if not self.path.startswith("/to/"):
            return super().send_head()
        self.send_response(302)
        self.send_header("Location", self.path.removeprefix("/to/"))
        self.end_headers()
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Whoever leaves early is no error."""


@pytest.fixture
def served() -> Iterator[Callable[[Path], str]]:
    """Serves folders over http on this machine, each until the test ends; gives their URLs."""
    servers = []

    def serve(folder: Path) -> str:
        server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
