"""Starts the service: ``python -m tokenizer_svc --help``."""

import sys

from handscroll.errors import HandscrollError
from svckit import server
from tokenizer_svc.service import build
from tokenizer_svc.settings import TokenizerSettings


def main() -> None:
    """Serve until told to stop."""
    try:
        server.run("tokenizer", TokenizerSettings.read(), build)
    except HandscrollError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
