"""``python -m generator_svc``: serve until SIGTERM."""

from generator_svc.service import build
from generator_svc.settings import GeneratorSettings
from svckit import server


def main() -> None:
    """Read the settings and serve."""
    server.run("generator", GeneratorSettings.read(), build)


if __name__ == "__main__":
    main()
