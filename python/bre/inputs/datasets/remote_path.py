"""Names of what lies elsewhere, as s3://bucket/train-{000..009}.tar: what they stand for, and words for what failed.

fsspec and the libraries that it calls do the reading. Who may read is theirs to know: they find credentials in the
environment and in their own files; bre takes none, and shows none that stand in a name.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit

from ..._check import printable
from ...errors import InputError
from .._extras import need

TRIES = 6  # tries; of a request that fails; source: chosen, with 2% of requests failing one in 10^10 is given up
FIRST_WAIT = 0.1  # seconds; before the second try, doubled for each further one; source: chosen, together three seconds
TIMEOUT = 60  # seconds; that a request may take; source: chosen, a block takes one at a hundredth of usual speeds
T = TypeVar("T")


class NotThere(InputError):
    """A file that is not there."""


class _Kind(NamedTuple):
    """Where files lie. module: what fsspec needs to read there. extra: of bre-engine, which has it. lists: whether
    names can be found by a part of them."""

    module: str
    extra: str
    lists: bool = True
    options: Callable[[], dict[str, Any]] = dict


def _s3_options() -> dict[str, Any]:
    return {"config_kwargs": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "retries": {"max_attempts": 0}}}


def _http_options() -> dict[str, Any]:
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=TIMEOUT)}}


_KINDS = {
    "s3": _Kind("s3fs", "s3", options=_s3_options),
    "gs": _Kind("gcsfs", "gcs", options=lambda: {"requests_timeout": TIMEOUT}),
    "hf": _Kind("huggingface_hub", "hf"),
    "https": _Kind("aiohttp", "http", lists=False, options=_http_options),
    "http": _Kind("aiohttp", "http", lists=False, options=_http_options),
    "memory": _Kind("fsspec", ""),
}


class RemotePath:
    """The name of a file or folder elsewhere. What a format asks of a path, it answers as a Path does; `str` leaves
    out user, password and what follows a question mark, which may be a key."""

    def __init__(self, uri: str):
        """Raises InputError for a kind of place that bre does not read from."""
        self.protocol, _, rest = uri.partition("://")
        if self.protocol not in _KINDS:
            known = ", ".join(f"{name}://" for name in (*_KINDS, "file") if name != "memory")
            raise InputError(f"{printable(uri, 50)!r}: bre reads paths and {known}; fetch the set first")
        self.uri = uri
        self._shown = f"{self.protocol}://{_without_keys(rest, self.protocol)}"
        self._plain = PurePosixPath(self._shown.partition("://")[2])

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"RemotePath({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def name(self) -> str:
        return self._plain.name

    @property
    def suffix(self) -> str:
        return self._plain.suffix

    @property
    def lists(self) -> bool:
        return _KINDS[self.protocol].lists

    @property
    def files(self) -> Any:
        """The file system of fsspec that it lies in. Raises InputError where what that needs is not installed."""
        return _file_system(self.protocol)

    @property
    def key(self) -> str:
        """What its file system calls it."""
        key: str = self.files._strip_protocol(self.uri)
        return key

    def beside(self, key: str) -> RemotePath:
        """Another one in the same file system, by what that calls it."""
        return RemotePath(key if "://" in key else f"{self.protocol}://{key.lstrip('/')}")

    def ask(self, what: Callable[[], T]) -> T:
        """what() after as many tries as it takes, up to TRIES. Raises InputError where it failed for good."""
        for number in range(TRIES):
            try:
                return what()
            except InputError:
                raise
            except Exception as e:
                if _is_final(e) or number == TRIES - 1:
                    words = self._words(e, number + 1)
                    kind = NotThere if words == _NOT_THERE.format(self) else InputError
                    raise kind(words) from None  # not from e, which may tell of keys
                time.sleep(FIRST_WAIT * 2**number * (0.5 + random.random()))
        raise AssertionError

    def _words(self, error: Exception, tries: int) -> str:
        if isinstance(error, FileNotFoundError) or _status(error) == 404:
            return _NOT_THERE.format(self)
        if type(error).__name__ in _NO_CREDENTIALS:
            return f"{self} cannot be read: no credentials were found where its library looks for them"
        status = _status(error)
        if isinstance(error, PermissionError) or status in (401, 403):
            return f"{self} cannot be read: access is denied, or the credentials are wrong"
        said = re.sub(r"\S*(://|\?|[Kk]ey|[Tt]oken|[Ss]ignature|[Ss]ecret|[Pp]assword)\S*", "...", str(error))
        said = f"{type(error).__name__}: {printable(' '.join(said.split()), 200)}"
        return f"{self} cannot be read{f' after {tries} tries' if tries > 1 else ''}: {said}"


AnyPath: TypeAlias = Path | RemotePath
_NOT_THERE = "{} is not there: no such bucket, folder or file"
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")


def on_disk(path: AnyPath | None) -> Path | None:
    """A path on this machine, None for others."""
    return path if isinstance(path, Path) else None


def _without_keys(rest: str, protocol: str) -> str:
    """A name without what may be secret in it."""
    place, slash, path = rest.partition("/")
    place = place.rpartition("@")[2] if protocol != "hf" else place
    return place + slash + (re.split(r"[?#]", path)[0] if protocol in ("http", "https") else path)


def _status(error: Exception) -> int | None:
    """Of an answer by HTTP."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            if isinstance(found := getattr(holder, name, None), int):
                return found
    return None


def _is_final(error: Exception) -> bool:
    """Whether to ask again is of no use."""
    if isinstance(error, FileNotFoundError | PermissionError | NotImplementedError | IsADirectoryError | TypeError):
        return True
    if type(error).__name__ in _NO_CREDENTIALS:
        return True
    status = _status(error)
    return status is not None and 400 <= status < 500 and status not in (408, 425, 429)


@lru_cache(len(_KINDS))
def _file_system(protocol: str) -> Any:
    kind = _KINDS[protocol]
    need(kind.module, kind.extra, f"reading {protocol}://")
    fsspec = need("fsspec", "s3", f"reading {protocol}://")
    files = fsspec.filesystem(protocol, **kind.options())
    if protocol == "s3":
        files.retries = 1  # `ask` asks again
    return files


def shown(name: str) -> str:
    """A path or URI for people, without what may be secret in it."""
    if not is_uri(name):
        return name
    protocol, _, rest = name.partition("://")
    return f"{protocol}://{_without_keys(rest, protocol)}"


def is_uri(name: str) -> bool:
    return "://" in name


def local_path(uri: str) -> Path:
    """Of a file:// URI. Raises InputError for one of another machine."""
    from urllib.request import url2pathname

    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{printable(uri, 100)!r} names another machine: file:// is for this one, as in file:///data")
    return Path(url2pathname(uri.partition("://")[2].removeprefix(parts.netloc)))
