"""``python -m gateway``: serve until SIGTERM."""

import sys

from gateway.app import server
from gateway.settings import GatewaySettings
from handscroll.errors import HandscrollError
from svckit import logs


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = GatewaySettings.read()
        logs.configure("gateway", settings.log_level)
        server(settings).run()
    except HandscrollError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
