"""``python -m tokenizer_svc``: serve until SIGTERM; ``--help`` tells its settings."""

from svckit import server
from tokenizer_svc.service import build
from tokenizer_svc.settings import TokenizerSettings

if __name__ == "__main__":
    server.run("tokenizer", TokenizerSettings, build)
