"""``python -m gateway``: serve until SIGTERM."""

import sys

from gateway.app import server
from gateway.settings import GatewaySettings
from handscroll.errors import HandscrollError, Unavailable
from svckit import logs


def main() -> None:
    """Read the settings and serve."""
    try:
        settings = GatewaySettings.read()
        logs.configure("gateway", settings.log_level)
        server(settings).run()
    except HandscrollError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(1 if isinstance(error, Unavailable) else 2)


if __name__ == "__main__":
    main()
