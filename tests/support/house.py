"""All services in one process, as many of each as a test wants: real but for what draws patches.

They speak gRPC and HTTP with each other as they do elsewhere. Drawing costs nothing, so that tests
can see what becomes of thousands of requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from gateway.app import server
from gateway.settings import GatewaySettings
from generator_svc.easel import Easel
from generator_svc.engine import Engine
from generator_svc.service import servicer as generator_servicer
from handscroll.canvas import Canvas, Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.geometry import Patch
from svckit.keys import canvas_key
from svckit.server import started
from svckit.settings import ServiceSettings, StoreSettings
from tests.gateway.conftest import serving
from tests.support.toys import ToyLedger, ToyPainters, served_by
from tests.tiler_svc.fakes import CountingTokenizer
from tiler_svc import service as tiler
from tiler_svc.settings import TilerSettings
from tokenizer_svc.engine import Engine as TokenizerEngine
from tokenizer_svc.engine import Workers

_seeds = count(1)
_QUICK: dict[str, Any] = {"port": 0, "drain_s": 1, "notice_s": 0}


@dataclass
class House:
    """What stands.

    Attributes:
        model: what the tokenizer decodes with.
        store: where everything is kept.
        painters, engines: one of each for every generator.
        gateways: host and port of each.
        tokenizers: all of them.
    """

    model: Checkpoint
    store: StoreSettings
    painters: list[ToyPainters] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    tokenizers: list[CountingTokenizer] = field(default_factory=list)
    gateways: list[tuple[str, int]] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        """Of the gateways."""
        return [f"http://{host}:{port}" for host, port in self.gateways]

    @property
    def drawn(self) -> Counter[Patch]:
        """How often each patch was drawn, by whomever."""
        return sum((one.drawn for one in self.painters), Counter())

    async def canvas(self, seed: int | None = None) -> Canvas:
        """A canvas that exists."""
        canvas = Canvas(
            self.model.digest,
            "planet",
            next(_seeds) if seed is None else seed,
            self.model.worlds["planet"].extent,
            sampling=Sampling(group=64),
        )
        store = self.store.open()
        await store.create(canvas_key(canvas.id), canvas.canonical())
        return canvas


@asynccontextmanager
async def house(
    model: Checkpoint,
    store: StoreSettings,
    of_each: int = 1,
    pace_s: float = 0.0,
    slots: int = 2,
    backlog: int = 4096,
    gateway: dict[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open as many of each service around a store.

    Args:
        model: of the tokenizer.
        store: where everything is kept.
        of_each: how many.
        pace_s: how long a drawing takes.
        slots: painters of each generator.
        backlog: patches that requests to a generator may stand on.
        gateway: further settings of gateways.
    """
    made, ledger = House(model, store), ToyLedger()
    async with AsyncExitStack() as stack:

        async def listening(servicers: Any, settings: ServiceSettings) -> str:
            port = await stack.enter_async_context(started(servicers, settings))
            return f"127.0.0.1:{port}"

        to_generators, to_tokenizers, to_tilers = list[str](), list[str](), list[str]()
        for _ in range(of_each):
            painters = ToyPainters(slots, pace_s)
            easel = Easel(painters, ledger.of(painters))
            opened = await stack.enter_async_context(store.opened())
            engine = Engine(opened, easel, served_by(model), backlog, 4096)
            made.painters.append(painters)
            made.engines.append(engine)
            stack.push_async_callback(easel.close)
            to_generators.append(
                await listening([generator_servicer(engine)], ServiceSettings(**_QUICK))
            )
            workers = Workers(1, 1024)
            stack.callback(workers.close)
            tokenizer = CountingTokenizer(TokenizerEngine(model, workers))
            made.tokenizers.append(tokenizer)
            to_tokenizers.append(await listening([tokenizer.servicer()], ServiceSettings(**_QUICK)))
        for own_generator in to_generators:  # so that more than one draws, and needs the ledger
            told = TilerSettings(
                generator=own_generator,
                tokenizer=",".join(to_tokenizers),
                store=store,
                **_QUICK,
            )
            servicers = await stack.enter_async_context(tiler.build(told))
            to_tilers.append(await listening(servicers, told))
        for _ in range(of_each):
            settings = GatewaySettings(
                tiler=",".join(to_tilers), store=store, **_QUICK | (gateway or {})
            )
            port = await stack.enter_async_context(serving(server(settings)))
            made.gateways.append(("127.0.0.1", port))
        yield made
