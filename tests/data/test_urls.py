"""Which URLs shards may have, and that nothing else is ever opened."""

import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from braceexpand import braceexpand

from data import shard_urls
from data.braces import MAX_SHARDS, expand
from data.tar_stream import UNREADABLE, pairs_in_url
from data.urls import open_shard

Served = Callable[[Path], str]


@pytest.mark.parametrize(
    "url",
    [
        "pipe:touch canary",
        "pipe:touch canary #://x.tar",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "-",
        "--help",
        "zip://x.tar::http://127.0.0.1/x.zip",
        "simplecache::http://127.0.0.1/x.tar",
        "http://127.0.0.1/x.tar::file:///etc/passwd",
        "${WDS_X}",
        "${WDS_X}/x.tar",
        "http://${WDS_X}/x.tar",
        "http://$HOST/x.tar",
        "http://127.0.0.1/`touch canary`.tar",
        "http://127.0.0.1/x.tar | touch canary",
        "cat x.tar |",
        "http://127.0.0.1/x.tar > canary",
        "http://127.0.0.1/x\n.tar",
        "http://127.0.0.1/x\x00.tar",
        "http://127.0.0.1/\x1b[2Jx.tar",
        "ftp://127.0.0.1/x.tar",
        "sftp://127.0.0.1/x.tar",
        "gs://bucket/x.tar",
        "ais://bucket/x.tar",
        "local:///etc/passwd",
        "memory://x.tar",
        "data:text/plain,hello",
        "python://x.tar",
        "://x.tar",
        "http://",
        "http:///x.tar",
        "http://[::1/x.tar",
        "http://127.0.0.1:99999/x.tar",
        "http://127.0.0.1/",
        "",
    ],
)
def test_everything_but_a_shards_url_is_refused_by_its_name(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WDS_X", "http://127.0.0.1")
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        shard_urls([url])
    sentence = str(refused.value)
    assert repr(url) in sentence and sentence.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "pattern", ["{pipe:touch ,http://127.0.0.1/}x", "{fil,htt}e:///etc/passwd"]
)
def test_braces_hide_no_scheme(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"'pipe:touch x' is neither|'file:///etc/passwd' must"):
        shard_urls([pattern])


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    for url in ("https://me:secret@host/x.tar", "ftp://me:secret@host/x.tar?key=secret"):
        with pytest.raises(ValueError, match=r"name or password|'ftp://host/x.tar'") as refused:
            shard_urls([url])
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "bomb",
    [
        "{0..999999999}",
        "{0..999999999999999999}",
        "{0..9}" * 40,
        "{{0..99999},{0..99999}}",
        "{a,{b,{c,{0..99999},{0..99999}}}}",
        "{a,b}" * 300,
        "{" * 1900,
        "{a," * 600,
        "a" * 10_000_000,
    ],
)
def test_a_brace_bomb_is_refused_at_once(bomb: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"more than 100000 shards|not closed|longer than 2000"):
        shard_urls([f"http://127.0.0.1/{bomb}.tar"])
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "pattern",
    [
        "train-{000000..000012}.tar",
        "{a,b}/{1..3}-{x,}.tar",
        "{a,{b,c{1..2}}d}.tar",
        "{9..1}{01..10..3}",
        "{-2..2}{-01..1}",
        "plain.tar",
        "a,b.tar",
        "{1..9..4}{9..1..4}",
    ],
)
def test_braces_mean_what_webdataset_takes_them_to_mean(pattern: str) -> None:
    assert expand(pattern) == list(braceexpand(pattern))


@pytest.mark.parametrize("pattern", ["{}", "{a}", "a}", "{a", "{a..b..c..d}", "{1..x}", "{..}"])
def test_braces_without_a_list_or_a_range_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"braces without|not closed"):
        expand(pattern)


def test_as_many_shards_as_may_be_are_expanded() -> None:
    assert len(expand(f"http://host/{{1..{MAX_SHARDS}}}.tar")) == MAX_SHARDS


def test_a_list_is_known_by_its_fingerprint_whatever_key_its_queries_hold() -> None:
    shards = shard_urls(["http://host/{0..2}.tar?key=secret"])
    assert shards.urls[2] == "http://host/2.tar?key=secret"
    assert shards.fingerprint == shard_urls(["http://host/{0,1,2}.tar?key=other"]).fingerprint
    assert shards.fingerprint != shard_urls(["http://host/{0..3}.tar"]).fingerprint
    assert "secret" not in shards.name


def test_a_shard_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        shard_urls(["http://host/{0..2}.tar", "http://host/1.tar"])


def test_a_local_file_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    assert shard_urls([f"{tmp_path}/x.tar"]).urls == (f"{tmp_path}/x.tar",)
    with pytest.raises(FileNotFoundError, match=r"y\.tar' is not a local file"):
        shard_urls([f"{tmp_path}/y.tar"])
    with pytest.raises(FileNotFoundError, match="is not a local file"):
        shard_urls([str(tmp_path)])
    with pytest.raises(ValueError, match="no shard is given"):
        shard_urls([])


@pytest.mark.parametrize(("scheme", "extra"), [("https", "remote"), ("s3", "s3")])
def test_a_missing_package_is_one_sentence(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"{name} needs a package")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ValueError, match=rf"pip install 'sightline\[{extra}\]'"):
        shard_urls([f"{scheme}://host/x.tar"])


def test_a_redirect_is_followed_to_http_alone(tmp_path: Path, served: Served) -> None:
    (tmp_path / "x.tar").write_bytes(b"shard")
    host = served(tmp_path)
    assert open_shard(f"{host}/to/{host}/x.tar").read(5) == b"shard"
    for elsewhere in (f"file://{tmp_path}/x.tar", "file:/etc/passwd", "ftp://127.0.0.1/x.tar"):
        found = list(pairs_in_url(f"{host}/to/{elsewhere}"))
        assert [damaged.reason for damaged in found] == [UNREADABLE]


def test_the_environment_rewrites_no_url(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tar").write_bytes(b"right")
    (tmp_path / "y.tar").write_bytes(b"wrong")
    host = served(tmp_path)
    monkeypatch.setenv("GOPEN_REWRITE", f"{host}/x.tar={host}/y.tar")
    monkeypatch.setenv("WDS_REWRITE", f"{host}/x.tar={host}/y.tar")
    monkeypatch.setenv("WDS_X", "y")
    assert open_shard(shard_urls([f"{host}/x.tar"]).urls[0]).read(5) == b"right"
