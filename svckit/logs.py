"""Logs: one JSON object a line, with the request and the trace that each line belongs to."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from contextvars import ContextVar

from svckit import trace

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request being served; passed on from service to service."""

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record, with whatever ``extra`` it was given, as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self.service,
            "message": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        if trace.current().trace_id:
            line["trace_id"] = trace.current().trace_id
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(service: str, level: str) -> None:
    """Send all logs of this process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def new_request_id() -> str:
    """A name for a request that came without one."""
    return secrets.token_hex(8)


def clean_request_id(given: str) -> str:
    """A caller's name for its request if it is one, else a new one."""
    fits = 0 < len(given) <= 64 and given.isascii() and given.isprintable() and " " not in given
    return given if fits else new_request_id()
