"""The laws of `svckit.budgets`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handscroll.errors import InvalidRequest, OverBudget
from svckit import budgets
from svckit.budgets import MINUTE_S, Meter


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def test_minutes_worth_may_be_spent_at_once_and_is_earned_again() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(6):
        meter.spend("anna", "patches", 10, 60)
    with pytest.raises(OverBudget, match="60 patches a minute; this takes 10") as failure:
        meter.spend("anna", "patches", 10, 60)
    assert failure.value.retry_after_s == pytest.approx(10)
    clock.now += failure.value.retry_after_s
    meter.spend("anna", "patches", 10, 60)
    with pytest.raises(OverBudget):
        meter.spend("anna", "patches", 1, 60)
    # Whoever has been away for long has earned a minute's worth, and no more.
    clock.now += 60 * MINUTE_S
    meter.spend("anna", "patches", 60, 60)
    with pytest.raises(OverBudget):
        meter.spend("anna", "patches", 1, 60)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 300), st.integers(1, 1000)), max_size=50),
)
def test_no_minute_costs_more_than_two_and_who_waits_as_told_is_served(
    limit: int, wishes: list[tuple[float, int]]
) -> None:
    clock = Clock()
    meter = Meter(clock)
    spent: list[tuple[float, int]] = []
    for pause_s, cost in wishes:
        clock.now += pause_s
        if cost > limit:
            with pytest.raises(InvalidRequest, match=f"your budget is {limit}"):
                meter.spend("anna", "patches", cost, limit)
            continue
        try:
            meter.spend("anna", "patches", cost, limit)
        except OverBudget as error:
            assert 0 < error.retry_after_s <= MINUTE_S
            clock.now += error.retry_after_s
            meter.spend("anna", "patches", cost, limit)
        spent.append((clock.now, cost))
    for start, _ in spent:
        minute = [cost for at, cost in spent if start <= at < start + MINUTE_S]
        assert sum(minute) <= 2 * limit


def test_callers_and_things_have_budgets_of_their_own() -> None:
    meter = Meter(Clock())
    meter.spend("anna", "patches", 5, 5)
    meter.spend("bert", "patches", 5, 5)
    meter.spend("anna", "canvases", 5, 5)
    for who, what in (("anna", "patches"), ("bert", "patches"), ("anna", "canvases")):
        with pytest.raises(OverBudget):
            meter.spend(who, what, 1, 5)


def test_nothing_is_no_limit_and_what_costs_nothing_is_free() -> None:
    meter = Meter(Clock())
    meter.spend("anna", "patches", 10**9, 0)
    meter.spend("anna", "patches", 5, 5)
    meter.spend("anna", "patches", 0, 5)
    with meter.hold("anna", "streams", 0), meter.hold("anna", "streams", 0):
        pass


def test_refused_spending_costs_nothing() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.spend("anna", "patches", 4, 5)
    for _ in range(100):
        with pytest.raises(OverBudget):
            meter.spend("anna", "patches", 3, 5)
    meter.spend("anna", "patches", 1, 5)


def test_held_things_are_given_back_however_it_ends() -> None:
    meter = Meter(Clock())
    with meter.hold("anna", "streams", 2):
        with pytest.raises(ZeroDivisionError), meter.hold("anna", "streams", 2):
            with pytest.raises(OverBudget, match="2 streams already"):
                with meter.hold("anna", "streams", 2):
                    pass
            with meter.hold("bert", "streams", 2):
                pass
            raise ZeroDivisionError
        with meter.hold("anna", "streams", 2):
            pass
    assert not meter._held


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "CALLERS", 10)
    meter = Meter(Clock())
    for number in range(100):
        meter.spend(f"address {number}", "requests", 1, 5)
    assert len(meter._earned) == 10
