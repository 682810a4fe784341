"""Names of what the store holds.

Keys are built here and nowhere else, from integers and digests, so no text of a request ever
becomes a path: an owner or a prompt enters as its SHA-256. No key is a folder of another, since a
local folder could not hold both.

    canvases/{canvas}/spec.json                            what a canvas is
    patches/{canvas}/{level}/{frame}/{row}/{col}           its tokens
    tiles/{canvas}/{level}/{frame}/{row}/{col}.{format}    its pictures, which may expire
    texts/{encoder}/{prompt}                               a prompt's vectors
    pictures/{picture}.png                                 a picture to paint around
    known/{picture}/{model}/{finest}                       its tokens
    uploads/{owner}/{picture}                              the pictures that an owner holds
    uploaders/{picture}/{owner}                            who holds a picture
    uses/{picture}/{canvas}                                what is painted around a picture
    making/{picture}/{nonce}                               somebody makes or deletes such a canvas
    owners/{owner}/{canvas}                                the canvases that an owner holds
    holders/{canvas}/{owner}                               who holds a canvas
    branches/{canvas}/{child}                              what was branched from a canvas
    exports/{export}/spec.json                             what an export is
    exports/{export}/runs/{run}                            somebody makes its file
    exports/{export}/beats/{run}/{number}                  how far they are
    exports/{export}/files/{run}                           the file that they made
    exports/{export}/done                                  which of these files it is
    exported/{canvas}/{export}                             what was exported of a canvas
    saved/{owner}/{export}                                 the exports that an owner holds
    savers/{export}/{owner}                                who holds an export
    probe/{nonce}                                          see `Store.probe`
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal, NewType, get_args

from handscroll.errors import InvalidRequest
from handscroll.geometry import Patch, Tile

Key = NewType("Key", str)
"""The name of one value."""

Prefix = NewType("Prefix", str)
"""A folder of keys; it ends with a slash."""

TileFormat = Literal["webp", "png", "jpg"]

CANVASES, TILES, PICTURES = Prefix("canvases/"), Prefix("tiles/"), Prefix("pictures/")
EXPORTS, EXPORTED = Prefix("exports/"), Prefix("exported/")
PROBES = Prefix("probe/")
"""Folders of all that is of a kind."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def check_canvas_id(canvas_id: str) -> str:
    """The id itself, if it can be a canvas's.

    Raises:
        InvalidRequest: it is not 64 lowercase hexadecimal characters.
    """
    return _digest("a canvas id", canvas_id)


def canvas_key(canvas_id: str) -> Key:
    """Where the spec of a canvas is."""
    return Key(f"canvases/{check_canvas_id(canvas_id)}/spec.json")


def patch_key(canvas_id: str, patch: Patch) -> Key:
    """Where the tokens of a patch are."""
    level, frame, row, col = patch
    # The format `d` takes integers only.
    return Key(f"{patches_prefix(canvas_id)}{level:d}/{frame:d}/{row:d}/{col:d}")


def tile_key(canvas_id: str, tile: Tile, format: TileFormat) -> Key:
    """Where the picture of a tile is.

    Raises:
        InvalidRequest: tiles are not kept in that format.
    """
    if format not in get_args(TileFormat):
        expected = ", ".join(get_args(TileFormat))
        raise InvalidRequest(f"the format of a tile must be one of {expected}, not {format!r:.40}")
    level, row, col, frame = tile
    return Key(f"{tiles_prefix(canvas_id)}{level:d}/{frame:d}/{row:d}/{col:d}.{format}")


def text_key(encoder_digest: str, prompt: str) -> Key:
    """Where the vectors that a text encoder makes of a prompt are."""
    return Key(f"texts/{_digest('the digest of a text encoder', encoder_digest)}/{_hash(prompt)}")


def picture_key(picture: str) -> Key:
    """Where a picture is that canvases are painted around."""
    return Key(f"pictures/{_digest('a picture', picture)}.png")


def known_key(model: str, picture: str, finest: int) -> Key:
    """Where the tokens of a known picture are, for canvases of so many levels."""
    return Key(f"{tokens_prefix(picture)}{_digest('a model', model)}/{finest:d}")


def upload_key(owner: str, picture: str) -> Key:
    """The mark that an owner holds a picture, among the marks of that owner."""
    return Key(f"{uploads_prefix(owner)}{_digest('a picture', picture)}")


def uploader_key(picture: str, owner: str) -> Key:
    """The same mark among the marks of that picture."""
    return Key(f"{uploaders_prefix(picture)}{_hash(owner)}")


def use_key(picture: str, canvas_id: str) -> Key:
    """The mark that a canvas is painted around a picture."""
    return Key(f"{uses_prefix(picture)}{check_canvas_id(canvas_id)}")


def making_key(picture: str, nonce: str) -> Key:
    """The mark that somebody makes or deletes a canvas that is painted around a picture."""
    return Key(f"{making_prefix(picture)}{_nonce(nonce)}")


def owner_key(owner: str, canvas_id: str) -> Key:
    """The mark that an owner holds a canvas, among the marks of that owner."""
    return Key(f"{owner_prefix(owner)}{check_canvas_id(canvas_id)}")


def holder_key(canvas_id: str, owner: str) -> Key:
    """The same mark among the marks of that canvas.

    One who deletes a canvas takes back their own mark; the canvas stays while others hold it.
    """
    return Key(f"{holder_prefix(canvas_id)}{_hash(owner)}")


def branch_key(canvas_id: str, child_id: str) -> Key:
    """The mark that a canvas was branched from another."""
    return Key(f"{branch_prefix(canvas_id)}{check_canvas_id(child_id)}")


def export_key(export_id: str) -> Key:
    """Where the spec of an export is."""
    return Key(f"{export_prefix(export_id)}spec.json")


def run_key(export_id: str, run: str) -> Key:
    """The mark that somebody makes the file of an export, and is to go on with it."""
    return Key(f"{export_prefix(export_id)}runs/{_nonce(run)}")


def beat_key(export_id: str, run: str, number: int) -> Key:
    """Where somebody who makes the file of an export says how far they are, once in a while."""
    return Key(f"{export_prefix(export_id)}beats/{_nonce(run)}/{number:d}")


def file_key(export_id: str, run: str) -> Key:
    """Where the file of an export is that was made in a run."""
    return Key(f"{export_prefix(export_id)}files/{_nonce(run)}")


def done_key(export_id: str) -> Key:
    """Where the name of the run is whose file is that of the export."""
    return Key(f"{export_prefix(export_id)}done")


def exported_key(canvas_id: str, export_id: str) -> Key:
    """The mark that an export shows a canvas."""
    return Key(f"{exported_prefix(canvas_id)}{_digest('an export id', export_id)}")


def saved_key(owner: str, export_id: str) -> Key:
    """The mark that an owner holds an export, among the marks of that owner."""
    return Key(f"{saved_prefix(owner)}{_digest('an export id', export_id)}")


def saver_key(export_id: str, owner: str) -> Key:
    """The same mark among the marks of that export."""
    return Key(f"{savers_prefix(export_id)}{_hash(owner)}")


def saved_of(saver: Key) -> Key:
    """The mark among those of the owner that is the same as one among those of an export."""
    _, export_id, owner = saver.split("/")
    digest = _digest("an owner", owner)
    return Key(f"saved/{digest}/{_digest('an export id', export_id)}")


def probe_key() -> Key:
    """A key that nobody has used before."""
    return Key(f"{PROBES}{new_nonce()}")


def new_nonce() -> str:
    """A name that nobody has used before."""
    return secrets.token_hex(16)


def patches_prefix(canvas_id: str) -> Prefix:
    """All patches of a canvas."""
    return Prefix(f"patches/{check_canvas_id(canvas_id)}/")


def tiles_prefix(canvas_id: str) -> Prefix:
    """All tiles of a canvas."""
    return Prefix(f"tiles/{check_canvas_id(canvas_id)}/")


def owner_prefix(owner: str) -> Prefix:
    """All canvases of an owner."""
    return Prefix(f"owners/{_hash(owner)}/")


def holder_prefix(canvas_id: str) -> Prefix:
    """All owners of a canvas."""
    return Prefix(f"holders/{check_canvas_id(canvas_id)}/")


def branch_prefix(canvas_id: str) -> Prefix:
    """All canvases branched from a canvas."""
    return Prefix(f"branches/{check_canvas_id(canvas_id)}/")


def tokens_prefix(picture: str) -> Prefix:
    """All tokens of a picture."""
    return Prefix(f"known/{_digest('a picture', picture)}/")


def uploads_prefix(owner: str) -> Prefix:
    """All pictures of an owner."""
    return Prefix(f"uploads/{_hash(owner)}/")


def uploaders_prefix(picture: str) -> Prefix:
    """All owners of a picture."""
    return Prefix(f"uploaders/{_digest('a picture', picture)}/")


def uses_prefix(picture: str) -> Prefix:
    """All canvases that are painted around a picture."""
    return Prefix(f"uses/{_digest('a picture', picture)}/")


def making_prefix(picture: str) -> Prefix:
    """The marks of all who make or delete such a canvas."""
    return Prefix(f"making/{_digest('a picture', picture)}/")


def export_prefix(export_id: str) -> Prefix:
    """All of an export."""
    return Prefix(f"exports/{_digest('an export id', export_id)}/")


def runs_prefix(export_id: str) -> Prefix:
    """The marks of all who make the file of an export."""
    return Prefix(f"{export_prefix(export_id)}runs/")


def beats_prefix(export_id: str) -> Prefix:
    """What they say of how far they are."""
    return Prefix(f"{export_prefix(export_id)}beats/")


def files_prefix(export_id: str) -> Prefix:
    """The files that they made."""
    return Prefix(f"{export_prefix(export_id)}files/")


def exported_prefix(canvas_id: str) -> Prefix:
    """All exports of a canvas."""
    return Prefix(f"exported/{check_canvas_id(canvas_id)}/")


def saved_prefix(owner: str) -> Prefix:
    """All exports of an owner."""
    return Prefix(f"saved/{_hash(owner)}/")


def savers_prefix(export_id: str) -> Prefix:
    """All owners of an export."""
    return Prefix(f"savers/{_digest('an export id', export_id)}/")


def export_of(key: Key) -> str:
    """The export that a key under an `exported_prefix` or a `saved_prefix` names."""
    return _digest("an export id", key.rpartition("/")[2])


def canvas_of(key: Key) -> str:
    """The canvas of a spec, or that a key of an owner, a branch or a use names."""
    return check_canvas_id(key.removesuffix("/spec.json").rpartition("/")[2])


def picture_of(key: Key) -> str:
    """The picture that a key under an `uploads_prefix`, or the key of a picture, names."""
    return _digest("a picture", key.rpartition("/")[2].removesuffix(".png"))


def _digest(name: str, text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise InvalidRequest(
            f"{name} must be 64 characters of 0 to 9 and a to f, not {text!r:.80} "
            f"({len(text)} characters)"
        )
    return text


def _nonce(text: str) -> str:
    if not _NONCE.fullmatch(text):
        raise InvalidRequest(
            f"a nonce must be 32 characters of 0 to 9 and a to f, not {text!r:.80}"
        )
    return text


def _hash(text: str) -> str:
    # Lone surrogates have no UTF-8, but a key all the same.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
