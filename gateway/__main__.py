"""``python -m gateway``: serve until SIGTERM; ``--help`` tells its settings."""

from prometheus_client import start_http_server

from gateway.app import server
from gateway.settings import GatewaySettings
from svckit.server import observe, process


def main() -> None:
    """Read the settings and serve."""
    with process():
        settings = GatewaySettings.read()
        observe("gateway", settings.log_level)
        serving = server(settings)
        if settings.metrics_port is not None:
            start_http_server(settings.metrics_port, settings.host)
        serving.run()


if __name__ == "__main__":
    main()
