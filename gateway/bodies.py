"""Bodies of requests, bounded; JSON that says exactly what it may; refusals in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from handscroll.errors import InvalidRequest

MAX_BODY_BYTES = 2**16
BODY_S = 10.0

# What a protobuf field can carry; what makes sense is for the tiler to say.
Uint32 = Annotated[int, Field(ge=0, lt=2**32)]
Sint32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Strict(BaseModel):
    """A body, or a part of one: types are as they are named, and other fields refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_Body = TypeVar("_Body", bound=Strict)


async def whole(
    request: Request, what: str, media: Sequence[str], most_bytes: int, longest_s: float
) -> bytes:
    """The body of a request; one that is too large or too slow is refused while it is read.

    Args:
        request: the request.
        what: it is, for people.
        media: types that it may have by its own account.
        most_bytes: how long it may be.
        longest_s: how long it may take.

    Raises:
        HTTPException: it is of another type, too large, or too slow.
    """
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in media:
        # Also keeps forms of other sites out: they cannot send these without being asked first.
        raise HTTPException(415, f"Content-Type must be {', '.join(media)}, not {said!r:.80}")
    body = bytearray()
    try:
        async with asyncio.timeout(longest_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise HTTPException(
                        413,
                        f"{what} may have {most_bytes} bytes, and this one has more",
                        {"Connection": "close"},
                    )
    except TimeoutError:
        raise HTTPException(
            408, f"{what} was not there within {longest_s:g} s", {"Connection": "close"}
        ) from None
    return bytes(body)


async def read(request: Request, kind: type[_Body]) -> _Body:
    """The body of a request that is to be JSON.

    Raises:
        HTTPException: see `whole`.
        InvalidRequest: it says something else than it may.
    """
    body = await whole(request, "the body", ("application/json",), MAX_BODY_BYTES, BODY_S)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest("; ".join(map(_fault, error.errors()))) from error


def _fault(found: Any) -> str:
    """One thing that is wrong with a body, in words: where, what was wanted, what came."""
    place = ".".join(str(part) for part in found["loc"]) or "the body"
    if found["type"] == "json_invalid":
        return f"the body must be JSON: {found['ctx']['error']}"
    if found["type"] == "missing":
        return f"{place} is missing"
    if found["type"] == "extra_forbidden":
        return f"there is no field {place!r:.80}"
    if found["type"] == "too_long":
        return f"{place} may have {found['ctx']['max_length']} items"
    wanted = found["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{place} must be {wanted}, not {found['input']!r:.80}"
