"""Refusing what there is no room for: one line in the log and one more in the count, each time."""

from __future__ import annotations

import logging
from typing import TypeVar

from prometheus_client import Counter

from handscroll.errors import HandscrollError

_REFUSED = Counter("handscroll_refusals", "Requests refused for want of room", ["reason"])
_log = logging.getLogger(__name__)
_Error = TypeVar("_Error", bound=HandscrollError)


class Refusal:
    """One reason to refuse requests.

    Args:
        reason: a word or two, for metrics and logs.
    """

    def __init__(self, reason: str) -> None:
        self._reason, self._count = reason, _REFUSED.labels(reason)

    def __call__(self, error: _Error) -> _Error:
        """Count and log a refusal; what comes back is to be raised."""
        self._count.inc()
        _log.info("refused", extra={"reason": self._reason, "detail": str(error)})
        return error


def refused() -> dict[str, int]:
    """How many requests this process has refused, by reason; nothing for reasons that were none."""
    return {
        sample.labels["reason"]: int(sample.value)
        for metric in _REFUSED.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
