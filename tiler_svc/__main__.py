"""Starts the service: ``python -m tiler_svc --help``."""

import sys

from handscroll.errors import HandscrollError
from svckit import server
from tiler_svc.service import build
from tiler_svc.settings import TilerSettings


def main() -> None:
    """Serve until told to stop."""
    try:
        server.run("tiler", TilerSettings.read(), build)
    except HandscrollError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
