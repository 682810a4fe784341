"""Child processes that are started together, kept alive, and stopped together."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from handscroll.errors import Unavailable

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_STEADY_S = 20.0
"""A process that lived so long started well; one that dies sooner, so many times, never will."""
_FALSE_STARTS = 5
_NEVER = 2
"""Exit code of a process that cannot start, however often it is tried."""


@dataclass(eq=False)
class Child:
    """A process to keep alive.

    Attributes:
        name: in words, and of its log file.
        argv: what to run.
        env: added to our own environment.
        stop_s: how long it may take to stop before it is killed.
        on_restart: called after it died and was started again.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 10.0
    on_restart: Callable[[], Awaitable[None]] | None = None
    process: asyncio.subprocess.Process | None = None
    false_starts: int = 0

    def kill(self) -> None:
        """Let it die, to be started again."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()


class Processes:
    """A set of children. Leaving the context stops them.

    Args:
        logs: folder for what they write.
        children: all that there will be, in the order in which to stop them.
    """

    def __init__(self, logs: Path, children: Sequence[Child]) -> None:
        self.logs, self.children = logs, children
        self._keepers: list[asyncio.Task[None]] = []
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Processes:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for child in self.children:
            await _stop(child)

    async def start(self, child: Child) -> None:
        """Start a child and keep it alive from now on."""
        await self._spawn(child)
        self._keepers.append(asyncio.create_task(self._keep(child)))

    def log_of(self, child: Child) -> Path:
        """Where a child's output goes."""
        return self.logs / f"{child.name}.log"

    def last_words(self, child: Child, lines: int = 5) -> str:
        """The end of a child's output."""
        text = self.log_of(child).read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-lines:])

    def _verdict(self, child: Child, code: int) -> Unavailable:
        """What is said of a child that is given up."""
        if code == _NEVER:
            return Unavailable(f"{child.name} cannot start: {self.last_words(child, 1)}")
        return Unavailable(
            f"{child.name} died {child.false_starts} times (exit code {code}); it last said, in "
            f"{self.log_of(child)}:\n{self.last_words(child)}"
        )

    async def _spawn(self, child: Child) -> None:
        with self.log_of(child).open("ab") as log:
            child.process = await asyncio.create_subprocess_exec(
                *child.argv,
                env=os.environ | child.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop them in turn
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )

    async def _keep(self, child: Child) -> None:
        while True:
            assert child.process is not None
            began = time.monotonic()
            code = await child.process.wait()
            _kill_group(child.process.pid)
            steady = time.monotonic() - began > _STEADY_S
            child.false_starts = 0 if steady else child.false_starts + 1
            if code == _NEVER or child.false_starts >= _FALSE_STARTS:
                if not self.broken.done():
                    self.broken.set_exception(self._verdict(child, code))
                return
            pause_s = 0.2 * 2**child.false_starts
            _log.warning(
                "%s ended (%s); starting it again in %.1f s", child.name, _why(code), pause_s
            )
            await asyncio.sleep(pause_s)
            await self._spawn(child)
            if child.on_restart is not None:
                await child.on_restart()


def _why(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _stop(child: Child) -> None:
    """Ask a child to stop, and make it if it does not."""
    process = child.process
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), child.stop_s)
    except TimeoutError:
        process.kill()
        await process.wait()
    _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    """Kill what a dead process left behind."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def die_with_parent() -> None:
    """On Linux no child outlives us, even if we are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
