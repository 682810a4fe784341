"""Keys: what a caller shows, and the file that says which there are.

A key is ``hs_<id>_<secret>``: a public name of eight hexadecimal digits, and 256 random bits. The
file is a JSON list with one object for each key, which holds the SHA-256 of the secret, never the
secret. A secret so long cannot be guessed from its digest, so the digest needs neither salt nor
work.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from handscroll.errors import InvalidRequest

KEYS_FILE = "HANDSCROLL_ACCESS_KEYS_FILE"
"""The variable that names the file."""
LOOKED_S = 1.0
"""How long the file is not looked at again; so long a revoked key may still open."""

_KEY = re.compile(r"hs_([0-9a-f]{8})_([0-9a-f]{64})", re.ASCII)
# Compared with where there is no key of that id, so that such a key takes no less time.
_NOBODY = "0" * 64
_log = logging.getLogger(__name__)


class Role(IntEnum):
    """What a caller may do; each may do what those before it may."""

    NONE = 0
    """Ask how the service is."""
    READ = 1
    """Look at what is painted."""
    PAINT = 2
    """Make canvases, have them painted, and delete their own."""
    ADMIN = 3
    """Delete what is nobody's, and see figures about everybody."""


RoleName = Literal["read", "paint", "admin"]
_Budget = Annotated[int | None, Field(ge=0)]


class Key(BaseModel):
    """What the file says of a key. A budget that is absent is that of the service; 0 is no limit.

    Attributes:
        id: the public part.
        name: whose it is, for people.
        role: what it may do.
        sha256: of the secret, in hexadecimal.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    # Without control characters: it is shown on terminals.
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}*$")]
    role: RoleName
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    requests_per_minute: _Budget = None
    patches_per_minute: _Budget = None
    canvases_per_minute: _Budget = None
    streams: _Budget = None
    own_canvases: _Budget = None
    own_canvas_bytes: _Budget = None
    own_picture_bytes: _Budget = None
    own_export_bytes: _Budget = None


BUDGETS = (
    "requests_per_minute",
    "patches_per_minute",
    "canvases_per_minute",
    "streams",
    "own_canvases",
    "own_canvas_bytes",
    "own_picture_bytes",
    "own_export_bytes",
)
"""What a key may have budgets of its own for."""
_FILE = TypeAdapter(list[Key])


def new_key(name: str, role: RoleName, **budgets: int | None) -> tuple[str, Key]:
    """A key, to be shown once, and what the file says of it.

    Raises:
        InvalidRequest: the name is empty or too long, or a budget is negative.
    """
    id, secret = secrets.token_hex(4), secrets.token_hex(32)
    try:
        key = Key(id=id, name=name, role=role, sha256=_digest(secret), **budgets)
    except ValidationError as error:
        raise InvalidRequest(_faults(error)) from None
    return f"hs_{id}_{secret}", key


def holds_key(text: str) -> bool:
    """Whether something that looks like a key stands in a text."""
    return "hs_" in text and _KEY.search(text) is not None


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by id.

    Raises:
        InvalidRequest: there is no such file, or it is not a list of keys.
    """
    try:
        keys = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"the keys file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InvalidRequest(f"the keys file {path} is not one: {_faults(error)}") from None
    found = {key.id: key for key in keys}
    if len(found) < len(keys):
        raise InvalidRequest(f"the keys file {path} has an id twice")
    return found


@contextmanager
def changed_keys(path: Path) -> Iterator[dict[str, Key]]:
    """The keys of a file, to be changed inside; then the file is replaced whole.

    Who changes it at the same time waits. A file that is not there yet has no keys.

    Raises:
        InvalidRequest: it cannot be read or written.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidRequest(f"there is no folder {path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(path) if path.exists() else {}
        yield keys
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(_FILE.dump_json(list(keys.values()), indent=2, exclude_none=True))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror}") from None
        finally:
            aside.unlink(missing_ok=True)
    finally:
        os.close(folder)


class Keyring:
    """The keys of a file, read again when it changes.

    Args:
        path: of the file.

    Raises:
        InvalidRequest: it cannot be read. Later the keys read last stay valid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path)
        self._stamp, self._looked = self._look(), time.monotonic()

    def find(self, shown: str) -> Key | None:
        """The key that is shown, if it is one of ours. Whether not, takes equally long to say."""
        if time.monotonic() > self._looked + LOOKED_S:
            self._refresh()
        parts = _KEY.fullmatch(shown)
        id, secret = parts.groups() if parts else ("", "")
        known = self._keys.get(id)
        same = hmac.compare_digest(_digest(secret), known.sha256 if known else _NOBODY)
        return known if same else None

    def _refresh(self) -> None:
        self._looked, before, self._stamp = time.monotonic(), self._stamp, self._look()
        if self._stamp == before:
            return
        try:
            self._keys = read_keys(self._path)
        except InvalidRequest as error:
            _log.error("keys stay as they were", extra={"fault": str(error)})
        else:
            _log.info("keys read again", extra={"keys": len(self._keys)})

    def _look(self) -> tuple[int, ...]:
        """What is another whenever the file is; a mounted Secret changes by a symbolic link."""
        try:
            now = self._path.stat()
        except OSError:
            return ()
        return now.st_mtime_ns, now.st_ino, now.st_size


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _faults(error: ValidationError) -> str:
    """What is wrong, without the values: one may be a secret in the wrong place."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'the file'}: {one['msg']}"
        for one in error.errors(include_input=False, include_url=False)
    )
