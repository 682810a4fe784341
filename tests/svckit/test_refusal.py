"""A refusal is one line and one in the count, and the error that came in."""

import logging

import pytest

from handscroll.errors import Overloaded
from svckit.refusal import Refusal, refused


def test_refusal_is_counted_and_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    full, error = Refusal("full"), Overloaded("no room", 2.0)
    assert "full" not in refused()
    with caplog.at_level(logging.INFO):
        assert full(error) is error
    [record] = caplog.records
    assert (record.message, record.__dict__["reason"]) == ("refused", "full")
    assert record.__dict__["detail"] == "no room"
    full(error)
    assert refused()["full"] == 2
