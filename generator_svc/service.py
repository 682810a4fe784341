"""generator_svc on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from generator_svc.actors import RayLedger, RayPainters, join
from generator_svc.easel import Easel
from generator_svc.engine import PREFETCH, VIEWPORT, Engine
from generator_svc.settings import GeneratorSettings
from handscroll.errors import Unavailable
from handscroll_api.generator.v1 import generator_service_pb2 as pb
from handscroll_api.generator.v1 import generator_service_pb2_grpc as pb_grpc
from handscroll_api.status.v1 import status_service_pb2 as status_pb
from svckit import report, wire
from svckit.server import Servicer


class GeneratorServicer(pb_grpc.GeneratorServiceServicer):
    """Draws patches."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """The model that is served."""
        return pb.ListModelsResponse(models=[wire.model_to_pb(self.engine.served.model)])

    async def GeneratePatches(
        self, request: pb.GeneratePatchesRequest, context: Any
    ) -> AsyncIterator[pb.GeneratePatchesResponse]:
        """Patches, each as it is committed."""
        wanted = [wire.patch_from_pb(patch) for patch in request.patches]
        priority = PREFETCH if request.priority == pb.PRIORITY_PREFETCH else VIEWPORT
        async with aclosing(self.engine.patches(request.canvas, wanted, priority)) as found:
            async for patch, codes in found:
                yield pb.GeneratePatchesResponse(
                    patch=wire.patch_to_pb(patch), codes=codes.tobytes()
                )


def servicer(engine: Engine) -> Servicer:
    """The service over an engine."""
    return Servicer(
        pb.DESCRIPTOR.services_by_name["GeneratorService"],
        lambda server: pb_grpc.add_GeneratorServiceServicer_to_server(
            GeneratorServicer(engine), server
        ),
    )


def _painting(engine: Engine) -> status_pb.Painting:
    found = engine.easel.painting()
    return status_pb.Painting(
        busy=found.busy,
        idle=found.idle,
        away=found.away,
        works=len(engine),
        viewport=found.ready[VIEWPORT],
        prefetch=found.ready[PREFETCH],
        patches_per_s=found.patches_per_s,
    )


@asynccontextmanager
async def build(settings: GeneratorSettings) -> AsyncIterator[Sequence[Servicer]]:
    """Open the store, join Ray, make painters."""
    async with settings.store.opened() as store:
        join(settings.ray_address)
        painters = RayPainters(settings.painters, settings.model, settings.painter_gpus)
        ledger = RayLedger()
        easel = Easel(painters, ledger)
        try:
            served = await painters.describe()
            report.loaded(served.model.digest)
            engine = Engine(store, easel, served, settings.backlog, settings.keep)

            async def look(process: status_pb.Process) -> None:
                process.model = served.model.digest
                process.painting.CopyFrom(_painting(engine))
                if painters.away == painters.slots:
                    raise Unavailable(f"none of its {painters.slots} painters answers")
                await store.ready()

            yield [servicer(engine), report.servicer("generator", look)]
        finally:
            await easel.close()
            await ledger.close()
            painters.close()
