"""Models by name: fetched once into a cache, and never used unless their bytes are the ones that are known here.

    path = models.get("lid176")       # what `curate models get lid176` does
    path = models.resolve("lid176")   # what a stage does, which never reaches for the network

The cache is `$CURATE_CACHE/models`, else `$XDG_CACHE_HOME/curate/models`, else `~/.cache/curate/models`. Where the network is
closed, `CURATE_MODELS_MIRROR` names a place (http, https or file URL) that holds the files under their names in the cache;
or a file is copied into the cache by hand. A mirror needs no trust: the digests decide.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from curate.errors import RecipeError, SourceError, did_you_mean
from curate.storage import atomic, sha256_file

if TYPE_CHECKING:
    from urllib.request import Request

MIRROR = "CURATE_MODELS_MIRROR"
CACHE = "CURATE_CACHE"
_CHUNK = 1 << 20
_PATIENCE = 60  # seconds without a byte


@dataclass(frozen=True)
class Named:
    """A model that can be fetched. file: its name in the cache and on a mirror; mb: its size, for people."""

    name: str
    file: str
    url: str
    sha256: str
    mb: float
    licence: str
    about: str


_FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/"
NAMED = {
    model.name: model
    for model in (
        Named(
            "lid176", "lid.176.bin", _FASTTEXT + "lid.176.bin",
            "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e", 131.3, "CC-BY-SA-3.0",
            "fastText language identification, 176 languages",
        ),
        Named(
            "lid176-ftz", "lid.176.ftz", _FASTTEXT + "lid.176.ftz",
            "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83", 0.9, "CC-BY-SA-3.0",
            "the same, quantised: smaller, a little less right",
        ),
        Named(
            "glotlid", "glotlid-v3.bin",
            "https://huggingface.co/cis-lmu/glotlid/resolve/85cd6716494360367b75f642b5bc78667605d0b4/model_v3.bin",
            "a818b6bd42a628ab47d3dfc1578c7ea615c45381f3494c42535e31e8c4cafc9e", 1700.0, "Apache-2.0",
            "GlotLID v3 language identification, 2,102 languages and scripts",
        ),
    )
}  # fmt: skip


def cache() -> Path:
    """The folder in which models are kept."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser() / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "curate" / "models"


def known(name: str) -> Named:
    """The model of this name. Raises RecipeError."""
    if name not in NAMED:
        raise RecipeError(f"no model is called {name!r}{did_you_mean(name, NAMED)}")
    return NAMED[name]


def resolve(model: str) -> str:
    """The path of a model given by name or by path. Raises RecipeError where a named one has not been fetched."""
    if model not in NAMED:
        return model
    path = cache() / NAMED[model].file
    if not path.is_file():
        raise RecipeError(f"model {model!r} is not in the cache ({path.parent}): run `curate models get {model}`")
    return str(path)


def listed() -> list[dict[str, Any]]:
    """Every named model, and its path where it has been fetched."""
    found = []
    for model in NAMED.values():
        path = cache() / model.file
        found.append(
            {
                **{key: getattr(model, key) for key in ("name", "about", "licence", "mb", "sha256", "url")},
                "path": str(path) if path.is_file() else None,
            }
        )
    return found


def get(name: str, progress: Callable[[int, int | None], None] | None = None) -> Path:
    """Fetch a model unless it is there, and return its path.

    progress: called with (bytes so far, bytes in all or None). Raises SourceError, in one line and without credentials, where
    the download fails, ends early, or has other bytes than it should; nothing is left behind then.
    """
    model = known(name)
    path = cache() / model.file
    if path.is_file() and sha256_file(path) == model.sha256:
        return path
    mirror = os.environ.get(MIRROR)
    url = _below(name, mirror, model.file) if mirror else model.url
    with atomic(path) as temporary:
        digest = _fetch(name, url, temporary, progress)
        if digest != model.sha256:
            raise SourceError(
                f"{name}: {_shown(url)} holds another file: its sha256 is {digest}, not {model.sha256}; nothing was kept"
            )
    return path


def _fetch(name: str, url: str, to: Path, progress: Callable[[int, int | None], None] | None) -> str:
    """Write what is at a URL to a file; returns its sha256."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    digest, done = hashlib.sha256(), 0
    try:
        with urlopen(_request(name, url), timeout=_PATIENCE) as answer, to.open("wb") as out:
            length = answer.headers.get("Content-Length") or ""
            size = int(length) if length.isdigit() else None
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, size)
    except HTTPError as error:
        raise SourceError(f"{name}: {_shown(url)} answers {error.code} {error.reason}{_HINT}") from None
    except (OSError, HTTPException) as error:  # of the chain only the words: an address may hold a password
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise SourceError(f"{name}: cannot fetch {_shown(url)}: {why}{_HINT}") from None
    if size is not None and done != size:
        raise SourceError(f"{name}: {_shown(url)} ended after {done:,} of {size:,} bytes; try again")
    return digest.hexdigest()


_HINT = f"; {MIRROR} names another place to fetch models from"


def _below(name: str, base: str, file: str) -> str:
    parts = _split(name, base)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{file}"))


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        fine = parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        fine = False
    if not fine:
        raise SourceError(f"{name}: its address (or that of {MIRROR}) is not an http, https or file URL")
    return parts


def _request(name: str, url: str) -> Request:
    """A request with the credentials of the URL as a header, which is not sent along when the server points elsewhere."""
    from urllib.request import Request

    parts = _split(name, url)
    request = Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")))
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair).decode())
    return request


def _shown(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
