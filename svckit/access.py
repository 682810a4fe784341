"""Who is there, what they may do, and what they have left: asked at the doors, before any work.

There are two doors, the gateway and tiler_svc. Services behind them ask nobody who they are, so
that only our own may reach them: the network sees to it, or certificates do.

A caller shows a key (see `svckit.keyring`) or none. The gateway passes on to the tiler what it was
shown, so the tiler needs no faith in the gateway; in what address an anonymous caller has, it
believes it only if told so (`client_address`).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from handscroll.errors import Forbidden, InvalidRequest, Unauthenticated
from svckit.budgets import Meter
from svckit.keyring import BUDGETS, KEYS_FILE, Key, Keyring, Role
from svckit.tls import TlsSettings

_BEARER = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)
_DEEDS = {Role.READ: "looking", Role.PAINT: "painting", Role.ADMIN: "administration"}


class AccessSettings(BaseSettings):
    """Who may do what. Budgets by the minute count in each process by itself; 0 is no limit.

    Where nothing of this is set, a door on a loopback address lets everybody paint without limit.
    """

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_ACCESS_", frozen=True, extra="forbid")

    keys_file: Path | None = Field(
        None, description="keys, as `handscroll keys` writes them; read again when it changes"
    )
    anonymous: Literal["none", "read", "paint"] | None = Field(
        None,
        description="what may be done without a key: none, read or paint; paint by default on a "
        "loopback address",
    )
    requests_per_minute: int = Field(12_000, ge=0, description="of a key, or of an address")
    patches_per_minute: int = Field(
        6_000, ge=0, description="patches that a caller may have painted"
    )
    canvases_per_minute: int = Field(30, ge=0, description="canvases that a caller may make")
    streams: int = Field(16, ge=0, description="streams that a caller may have open at a time")
    own_canvases: int = Field(1000, ge=0, description="canvases that a caller may hold")
    own_canvas_bytes: int = Field(
        2**32, ge=0, description="bytes of patches of canvases that a caller may hold"
    )
    own_picture_bytes: int = Field(
        2**30, ge=0, description="bytes of uploaded pictures that a caller may hold"
    )
    own_export_bytes: int = Field(
        2**32, ge=0, description="bytes of exports that a caller may hold"
    )
    trusted_network: bool = Field(
        False,
        description="the network lets nobody but our own services reach those behind the doors",
    )


class Rule(NamedTuple):
    """What one kind of request takes.

    Attributes:
        role: the least that may ask.
        makes: whether it makes a canvas, or keeps a picture for one.
        stream: whether the answer stays open.
    """

    role: Role
    makes: bool = False
    stream: bool = False


class Budgets(NamedTuple):
    """What a caller may have by the minute, streams at a time, and hold; 0 is no limit."""

    requests: int = 0
    patches: int = 0
    canvases: int = 0
    streams: int = 0
    own_canvases: int = 0
    own_canvas_bytes: int = 0
    own_picture_bytes: int = 0
    own_export_bytes: int = 0


class Caller(NamedTuple):
    """Whoever asks.

    Attributes:
        name: under which budgets are kept: of a key, or an address.
        role: what they may do.
        key: that they showed.
        budgets: theirs.
        meter: says what of these they have spent.
    """

    name: str
    role: Role
    key: Key | None
    budgets: Budgets
    meter: Meter

    @property
    def owner(self) -> str | None:
        """As whom they hold canvases; the space keeps secrets of others from being the same."""
        return f"key {self.key.id}" if self.key else None

    def require(self, role: Role) -> None:
        """Go on only with a caller who may do this much.

        Raises:
            Unauthenticated: they may not, and showed no key.
            Forbidden: their key is not enough.
        """
        if self.role >= role:
            return
        needed = f"{_DEEDS[role]} takes a key with the role {role.name.lower()}"
        if self.key is None:
            raise Unauthenticated(f"{needed}, in the header 'Authorization: Bearer hs_…'")
        raise Forbidden(f"{needed}; the key {self.key.id} has the role {self.key.role}")

    def spend(self, what: Literal["requests", "patches", "canvases"], cost: int) -> None:
        """Take from the budget.

        Raises:
            OverBudget: there is not so much left now.
            InvalidRequest: there never will be.
        """
        self.meter.spend(self.name, what, cost, getattr(self.budgets, what))


class Access:
    """Tells callers apart.

    Args:
        settings: keys, and what others may.
        host: address that the door listens on.

    Attributes:
        open: whether everybody may paint, since only this machine can reach the door.
        private: whether even looking takes a key.

    Raises:
        InvalidRequest: others can reach the door, and nothing says what they may; or the keys
            cannot be read.
    """

    def __init__(self, settings: AccessSettings, host: str) -> None:
        local = is_loopback(host)
        if settings.keys_file is None and settings.anonymous is None and not local:
            raise InvalidRequest(
                f"others can reach {host}: name a file of keys ({KEYS_FILE}), or "
                "say what may be done without one (HANDSCROLL_ACCESS_ANONYMOUS: none, read, paint)"
            )
        self.open = not settings.model_fields_set - {"trusted_network"}
        self._keyring = Keyring(settings.keys_file) if settings.keys_file else None
        self._anonymous = Role[(settings.anonymous or ("paint" if local else "none")).upper()]
        self.private = self._anonymous < Role.READ
        self._budgets = Budgets(
            settings.requests_per_minute,
            settings.patches_per_minute,
            settings.canvases_per_minute,
            settings.streams,
            settings.own_canvases,
            settings.own_canvas_bytes,
            settings.own_picture_bytes,
            settings.own_export_bytes,
        )
        self._meter = Meter()

    def find(self, shown: str) -> Key | None:
        """The key that is shown, if it is one of ours."""
        return self._keyring.find(shown) if self._keyring else None

    def caller(self, authorization: str | None, address: str) -> Caller:
        """Whoever comes with this.

        Args:
            authorization: the header or metadata of that name; None if none came.
            address: see `client_address`.

        Raises:
            Unauthenticated: what is shown is not a key of ours.
        """
        if authorization is None:
            return Caller(_network(address), self._anonymous, None, self._budgets, self._meter)
        shown = _BEARER.fullmatch(authorization)
        if shown is None:
            raise Unauthenticated("Authorization must be the word Bearer and a key, hs_…")
        key = self.find(shown[1])
        if key is None:
            raise Unauthenticated("the key that was shown is not, or no longer, one of ours")
        both = zip((getattr(key, name) for name in BUDGETS), self._budgets, strict=True)
        budgets = Budgets(*(usual if one is None else one for one, usual in both))
        return Caller(f"key {key.id}", Role[key.role.upper()], key, budgets, self._meter)

    @contextmanager
    def admitted(self, rule: Rule, authorization: str | None, address: str) -> Iterator[None]:
        """Serve a request inside, as that of `caller`, who may ask it and has something left.

        Raises:
            Unauthenticated: not one of ours, or a key is needed.
            Forbidden: the key is not enough.
            OverBudget: the caller has nothing left.
        """
        if self.open:
            yield
            return
        known = self.caller(authorization, address)
        known.require(rule.role)
        known.spend("requests", 1)
        if rule.makes:
            known.spend("canvases", 1)
        most = known.budgets.streams
        with known.meter.hold(known.name, "open streams", most) if rule.stream else nullcontext():
            caller.set(known)
            yield


class Door(NamedTuple):
    """What a gRPC server asks of callers.

    Attributes:
        access: tells them apart.
        rules: what each RPC takes, by its full name; others are refused.
        proxies: see `client_address`.
    """

    access: Access
    rules: Mapping[str, Rule]
    proxies: int


ANYBODY = Caller("anybody", Role.PAINT, None, Budgets(), Meter())
"""The caller where nobody is asked."""

caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""Whose request is being served."""

presented: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("presented", default=())
"""Metadata that tells the next door who is there; set by the gateway alone."""


def check_hidden(access: AccessSettings, tls: TlsSettings, host: str) -> None:
    """Refuse to serve behind the doors where others can get in.

    Raises:
        InvalidRequest: others can reach the address, and nothing keeps them out.
    """
    if not (is_loopback(host) or access.trusted_network or tls.ca):
        raise InvalidRequest(
            f"others can reach {host}, and this service asks nobody who they are: let it ask for "
            "certificates (HANDSCROLL_TLS_CA), or say that the network lets only our own services "
            "in (HANDSCROLL_ACCESS_TRUSTED_NETWORK=true)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that is listened on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def client_address(peer: str, forwarded: str, proxies: int) -> str:
    """The address of a caller; empty where there is none.

    Args:
        peer: where the connection comes from.
        forwarded: X-Forwarded-For: addresses, comma-separated, to which each proxy adds where its
            own connection came from. Whoever asks may have written the first of them.
        proxies: how many there are that do so, and that no caller can go around.
    """
    seen = [*forwarded.split(","), peer] if forwarded else [peer]
    found = seen[-1 - min(proxies, len(seen) - 1)].strip(" []")
    # What is longer is none, and is not to be remembered.
    return _address(found) if len(found) <= 64 else ""


@functools.lru_cache(4096)
def _address(text: str) -> str:
    """An address in the one spelling that it has; empty if it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


@functools.lru_cache(4096)
def _network(address: str) -> str:
    """What an anonymous caller is known by: of IPv6 the network, as a caller has all of one."""
    if ":" not in address:
        return f"address {address}"
    return f"address {ipaddress.IPv6Network((address, 64), strict=False)}"
