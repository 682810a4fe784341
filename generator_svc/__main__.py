"""``python -m generator_svc``: serve until SIGTERM; ``--help`` tells its settings."""

from generator_svc.service import build
from generator_svc.settings import GeneratorSettings
from svckit import server

if __name__ == "__main__":
    server.run("generator", GeneratorSettings, build)
