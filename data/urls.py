"""Where the shards of a stream may lie: in local files, or behind http, https, s3 and hf URLs.

webdataset's own opener runs shell commands that are written as URLs and lets the environment
rewrite them. It is never used: brace patterns are expanded here and URLs opened here, by fsspec.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from .braces import check_count, expand, short, shown, without_query

SCHEMES = ("http", "https", "s3", "hf")
SILENCE = 60.0
"""Seconds that a server may say nothing; how long a shard takes as a whole has no bound."""


@runtime_checkable
class ByteStream(Protocol):
    """What is read from its first byte to its last."""

    def read(self, size: int, /) -> bytes:
        """Read `size` bytes or fewer, none at the end."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ShardUrls:
    """The shards of a stream."""

    name: str
    urls: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 of the list, in hex: what the shards hold is not known before they are read.

        Queries do not count: they may hold a key, which is another one when a run is resumed.
        """
        return hashlib.sha256("\n".join(map(without_query, self.urls)).encode()).hexdigest()


def shard_urls(patterns: Sequence[str]) -> ShardUrls:
    """Expand brace patterns, such as `https://host/train-{000000..000123}.tar`, and check all URLs.

    Raises:
        FileNotFoundError: for a local file that is not there.
        ValueError: for anything but a local file and URLs of http, https, s3 and hf, a pattern of
            too many shards, a shard that is given twice, or a scheme that needs a package.
    """
    urls: list[str] = []
    for pattern in patterns:
        urls += expand(pattern)
        check_count(len(urls), pattern)
    if not urls:
        raise ValueError("no shard is given")
    if len(set(map(without_query, urls))) < len(urls):
        raise ValueError(f"a shard is given twice among {shown(', '.join(patterns))}")
    for url in urls:
        _check(url)
    for scheme in sorted({urlsplit(url).scheme for url in urls if "://" in url}):
        _check_package(scheme)
    return ShardUrls(name=short(", ".join(map(without_query, patterns))), urls=tuple(urls))


def is_url(item: str) -> bool:
    """Tell a URL from a folder."""
    return "://" in item


def open_shard(url: str) -> ByteStream:
    """Open a shard whose URL has been checked; nearly anything may be raised where that fails."""
    if "://" not in url:
        return open(url, "rb", buffering=0)
    import fsspec

    scheme = urlsplit(url).scheme
    options = _http_options() if scheme in ("http", "https") else {}
    unbuffered = {} if scheme == "s3" else {"block_size": 0}
    found: ByteStream = fsspec.filesystem(scheme, **options).open(url, "rb", **unbuffered)
    return found


def _check(url: str) -> None:
    """Refuse what is neither a local file nor a URL of ours."""
    if not url.isprintable() or set(url) & set("$`|<>\\") or "::" in url:
        raise ValueError(f"{shown(url)} has a character or a form that no shard's URL has")
    if "://" not in url:
        if url.startswith("-") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
            raise ValueError(f"{shown(url)} is neither a local file nor a URL")
        if not Path(url).is_file():
            raise FileNotFoundError(f"{shown(url)} is not a local file")
    else:
        _check_remote(url)


def _check_remote(url: str) -> None:
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError(f"{shown(url)} must begin with {'://, '.join(SCHEMES)}://")
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname and parts.path.strip("/")) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(f"{shown(url)} is not a URL of a shard")
    if "@" in parts.netloc:
        raise ValueError("a shard's URL must not hold a user's name or password")


def _check_package(scheme: str) -> None:
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except ImportError:
        extra = "s3" if scheme == "s3" else "remote"
        raise ValueError(
            f"{scheme}:// needs a package that is not here: pip install 'sightline[{extra}]'"
        ) from None


def _http_options() -> dict[str, Any]:
    """Bytes as they are stored; no bound on the whole, which by default is five minutes.

    aiohttp follows redirects to http and https and refuses all others.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    headers = {"Accept-Encoding": "identity"}
    return {"client_kwargs": {"timeout": timeout, "headers": headers, "auto_decompress": False}}
