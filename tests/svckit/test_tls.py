"""The laws of `svckit.tls`: who talks to whom, by which certificates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from handscroll.errors import InvalidRequest, OutOfTime, Unavailable
from svckit.client import calling, connect
from svckit.server import started
from svckit.settings import ServiceSettings
from svckit.tls import TlsSettings
from tests.svckit.echo import Echo, Line

pytestmark = pytest.mark.anyio


class Authority:
    """Makes certificates, in files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._authority, self._folder = trustme.CA(), folder
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def certify(self, name: str) -> TlsSettings:
        """Settings of somebody with a certificate of that name."""
        made = self._authority.issue_cert(name)
        cert, key = (self._folder / f"{name}.{kind}" for kind in ("cert", "key"))
        made.private_key_pem.write_to_path(str(key))
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return TlsSettings(cert=cert, key=key, ca=self.ca)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "theirs")


@asynccontextmanager
async def served(tls: TlsSettings) -> AsyncIterator[str]:
    """An echo with these certificates; yields its address."""
    told = ServiceSettings(host="127.0.0.1", drain_s=0, tls=tls)
    async with started([Echo().servicer()], told) as port:
        yield f"127.0.0.1:{port}"


async def ask(address: str, tls: TlsSettings, seconds: float = 20.0) -> str:
    """What an echo answers to a client with these certificates."""
    async with connect(address, tls) as channel, asyncio.timeout(60):
        with calling("the echo"):
            return await Line(channel).unary(timeout=seconds)


async def refused(address: str, tls: TlsSettings) -> None:
    """Fails if an echo answers; a handshake that fails is tried again until there is no time."""
    with pytest.raises((Unavailable, OutOfTime)):
        await ask(address, tls, 1.0)


async def test_services_with_certificates_talk(ours: Authority) -> None:
    async with served(ours.certify("127.0.0.1")) as address:
        assert await ask(address, ours.certify("gateway")) == "echo"


async def test_several_addresses_have_no_name_that_a_certificate_is_for(ours: Authority) -> None:
    with pytest.raises(InvalidRequest, match="with certificates, a service must be one name"):
        connect("127.0.0.1:7001,127.0.0.1:7002", ours.certify("gateway"))


async def test_client_without_certificate_or_with_one_of_others_is_refused(
    ours: Authority, theirs: Authority
) -> None:
    async with served(ours.certify("127.0.0.1")) as address:
        await refused(address, TlsSettings(ca=ours.ca))
        stranger = theirs.certify("gateway").model_copy(update={"ca": ours.ca})
        await refused(address, stranger)
        await refused(address, TlsSettings())
        assert await ask(address, ours.certify("gateway")) == "echo"


async def test_server_of_others_or_of_another_name_is_not_believed(
    ours: Authority, theirs: Authority
) -> None:
    client = ours.certify("gateway")
    async with served(theirs.certify("127.0.0.1")) as address:
        await refused(address, client)
    async with served(ours.certify("tiler")) as address:
        await refused(address, client)
    async with served(TlsSettings()) as address:
        await refused(address, client)


async def test_server_without_authorities_takes_every_client_of_tls(ours: Authority) -> None:
    alone = ours.certify("127.0.0.1").model_copy(update={"ca": None})
    async with served(alone) as address:
        assert await ask(address, TlsSettings(ca=ours.ca)) == "echo"
        await refused(address, TlsSettings())


def test_files_that_do_not_make_a_pair_are_named(ours: Authority) -> None:
    whole = ours.certify("pair")
    for missing in ("cert", "key"):
        half = whole.model_copy(update={missing: None})
        for make in (half.of_server, half.of_client):
            with pytest.raises(InvalidRequest, match="must be set together"):
                make()
    with pytest.raises(InvalidRequest, match="tls.cert and tls.key must be"):
        TlsSettings(ca=ours.ca).of_server()
    gone = whole.model_copy(update={"ca": ours.ca.with_name("gone.pem")})
    with pytest.raises(InvalidRequest, match="gone.pem cannot be read: No such file"):
        gone.of_client()
    assert TlsSettings().of_server() is None
    assert TlsSettings().of_client() is None
