"""TLS between services: certificates from files, the same three for servers and clients."""

from __future__ import annotations

from pathlib import Path

import grpc
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from handscroll.errors import InvalidRequest


class TlsSettings(BaseSettings):
    """Certificates of this process, in PEM files that are read once, at the start."""

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_TLS_", frozen=True, extra="forbid")

    cert: Path | None = Field(None, description="certificate of this process, with its chain")
    key: Path | None = Field(None, description="private key of the certificate")
    ca: Path | None = Field(
        None,
        description="authorities that are trusted; servers then ask clients for a certificate",
    )

    def of_server(self) -> grpc.ServerCredentials | None:
        """What a server shows and asks for; None for a server without TLS.

        Raises:
            InvalidRequest: a file cannot be read, or certificate or key are missing.
        """
        pair, ca = self._pair(), _read(self.ca)
        if pair is None:
            if ca is not None:
                raise InvalidRequest("tls.ca is set, so tls.cert and tls.key must be, too")
            return None
        return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)

    def of_client(self) -> grpc.ChannelCredentials | None:
        """What a client shows and trusts; None for a client without TLS.

        Raises:
            InvalidRequest: a file cannot be read, or of certificate and key one is missing.
        """
        pair, ca = self._pair(), _read(self.ca)
        if pair is None and ca is None:
            return None
        return grpc.ssl_channel_credentials(ca, *(pair or (None, None)))

    def _pair(self) -> tuple[bytes, bytes] | None:
        """Private key and certificate, in the order in which gRPC takes them."""
        key, cert = _read(self.key), _read(self.cert)
        if key is None and cert is None:
            return None
        if key is None or cert is None:
            raise InvalidRequest("tls.cert and tls.key must be set together, or neither")
        return key, cert


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
