"""The laws of `svckit.deadline`."""

import asyncio

import pytest

from svckit.deadline import remaining_s, within


def test_there_is_none_unless_it_was_set() -> None:
    assert remaining_s() is None
    with within(10):
        assert 9 < (remaining_s() or 0) <= 10
    assert remaining_s() is None


@pytest.mark.parametrize(("outer", "inner"), [(10, 20), (20, 10)])
def test_nearer_one_holds_inside_and_the_outer_one_returns(outer: float, inner: float) -> None:
    with within(outer):
        with within(inner):
            assert 9 < (remaining_s() or 0) <= 10
        assert outer - 1 < (remaining_s() or 0) <= outer


def test_time_that_is_up_is_none_left() -> None:
    with within(-3):
        assert remaining_s() == 0


def test_tasks_begin_with_that_of_their_maker() -> None:
    async def main() -> None:
        with within(10):
            task = asyncio.create_task(asyncio.sleep(0, result=None))
            inside = asyncio.create_task(look())
        await task
        assert 9 < (await inside or 0) <= 10
        assert remaining_s() is None

    async def look() -> float | None:
        return remaining_s()

    asyncio.run(main())
