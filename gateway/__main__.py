"""``python -m gateway``: serve until SIGTERM; ``--help`` tells its settings."""

from gateway.app import server
from gateway.settings import GatewaySettings
from svckit import logs
from svckit.server import process


def main() -> None:
    """Read the settings and serve."""
    with process():
        settings = GatewaySettings.read()
        logs.configure("gateway", settings.log_level)
        server(settings).run()


if __name__ == "__main__":
    main()
