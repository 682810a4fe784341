"""Work that is shared by all who ask for it, and work done side by side within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from handscroll.errors import OutOfTime
from svckit import logs, trace
from svckit.deadline import within

READS = 32
"""Reads of the store at a time, for one request."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(eq=False)
class _Job(Generic[T]):
    """Work under way, its span, how many wait for it, and whether one of them is in a hurry."""

    urged: asyncio.Event
    task: asyncio.Task[T] = field(init=False)
    span: trace.Span = field(default_factory=trace.Span)
    waiting: int = field(default=0)


class Jobs(Generic[K, T]):
    """At most one job for each key, however many ask.

    A job belongs to nobody: it has a deadline and a request id of its own, so that it outlives
    whoever asked first. When the last one waiting for it leaves, it is cancelled. Its span is a
    step of whoever asked first; the others' spans are linked to it.

    Args:
        name: of the span of a job.
        longest_s: how long a job may take.
    """

    def __init__(self, name: str, longest_s: float) -> None:
        self._name, self._longest_s = name, longest_s
        self._jobs: dict[K, _Job[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def join(
        self, key: K, work: Callable[[asyncio.Event], Coroutine[Any, Any, T]], urgent: bool
    ) -> T:
        """Wait for the job of a key, which is begun if there is none.

        Args:
            key: says what is done.
            work: begins the job; the event it is given is set as soon as somebody is in a hurry.
            urgent: whether we are.
        """
        job = joined = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = self._begin(key, work)
        if urgent:
            job.urged.set()
        job.waiting += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            if joined is not None:
                trace.current().link(joined.span)
            job.waiting -= 1
            if not job.waiting and not job.task.done():
                # Who asks from now on must not wait for a job that is being cancelled.
                del self._jobs[key]
                job.task.cancel()

    async def close(self) -> None:
        """Cancel all jobs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, key: K, work: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> _Job[T]:
        job = _Job[T](asyncio.Event())
        job.task = task = asyncio.create_task(
            self._capped(job, work(job.urged)), context=trace.detached()
        )
        self._tasks.add(task)

        def end(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if self._jobs.get(key) is job:
                del self._jobs[key]
            if not task.cancelled():
                task.exception()  # known to those who waited, if any did

        task.add_done_callback(end)
        return job

    async def _capped(self, job: _Job[T], work: Coroutine[Any, Any, T]) -> T:
        logs.request_id.set(logs.new_request_id())
        try:
            with within(self._longest_s), trace.span(self._name) as job.span:
                async with asyncio.timeout(self._longest_s):
                    return await work
        except TimeoutError:
            raise OutOfTime(f"not done in {self._longest_s:g} s") from None


async def at_once(
    limit: int, work: Callable[[Item], Awaitable[T]], items: Iterable[Item]
) -> list[T]:
    """The results of work on items, so many at a time; the first failure ends it all."""
    free = asyncio.Semaphore(limit)

    async def one(item: Item) -> T:
        async with free:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
