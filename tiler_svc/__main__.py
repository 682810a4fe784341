"""``python -m tiler_svc``: serve until SIGTERM; ``--help`` tells its settings."""

from svckit import server
from tiler_svc.service import RULES, build
from tiler_svc.settings import TilerSettings

if __name__ == "__main__":
    server.run("tiler", TilerSettings, build, RULES)
