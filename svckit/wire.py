"""Protobuf messages from and to the words of the algorithm: ``thing_from_pb``, ``thing_to_pb``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from handscroll.canvas import Branch, Canvas, Known, PromptRegion, Sampling
from handscroll.context import Codes
from handscroll.errors import InvalidRequest
from handscroll.geometry import Extent, Patch
from handscroll_api.canvas.v1 import canvas_service_pb2 as canvas_pb
from handscroll_api.generator.v1 import generator_service_pb2 as generator_pb

_KINDS = {
    canvas_pb.Extent.KIND_SCROLL: "scroll",
    canvas_pb.Extent.KIND_PLANE: "plane",
    canvas_pb.Extent.KIND_PICTURE: "picture",
}
_KIND_OF = {name: number for number, name in _KINDS.items()}


@dataclass(frozen=True)
class Model:
    """What services say to each other about a model.

    Attributes:
        digest: names its weights and configuration.
        worlds: what a canvas of each world covers unless it says otherwise, by name.
        sampling: the settings it paints best with.
        side_tok: tokens to a patch's side.
        codes: of a token.
        radius_tok: how far a pixel's value reaches, in tokens.
        text_encoder: digest of the sentence encoder it was trained with.
    """

    digest: str
    worlds: Mapping[str, Extent]
    sampling: Sampling
    side_tok: int
    codes: int
    radius_tok: int
    text_encoder: str

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch's codes."""
        return self.side_tok**2 * self.codes

    def codes_of(self, content: bytes) -> Codes:
        """A patch's codes (side, side, K) from their bytes."""
        return np.frombuffer(content, np.uint8).reshape(self.side_tok, self.side_tok, self.codes)


def patch_to_pb(patch: Patch) -> generator_pb.Patch:
    """A patch's key."""
    return generator_pb.Patch(**patch._asdict())


def patch_from_pb(message: generator_pb.Patch) -> Patch:
    """A patch's key."""
    return Patch(message.level, message.frame, message.row, message.col)


def extent_to_pb(extent: Extent) -> canvas_pb.Extent:
    """An extent; what is endless is left out."""
    return canvas_pb.Extent(
        kind=_KIND_OF[extent.kind],
        finest=extent.finest,
        height_px=extent.height_px,
        width_px=extent.width_px,
    )


def extent_from_pb(message: canvas_pb.Extent) -> Extent:
    """An extent.

    Raises:
        InvalidRequest: its kind is not one of those there are.
    """
    if message.kind not in _KINDS:
        raise InvalidRequest(
            f"extent.kind must be one of {', '.join(_KINDS.values())}, not {message.kind}"
        )
    return Extent(
        _KINDS[message.kind],  # type: ignore[arg-type]
        message.finest,
        message.height_px if message.HasField("height_px") else None,
        message.width_px if message.HasField("width_px") else None,
    )


def sampling_to_pb(sampling: Sampling) -> canvas_pb.Sampling:
    """Sampling, written out."""
    return canvas_pb.Sampling(**asdict(sampling))


def sampling_from_pb(message: canvas_pb.Sampling, default: Sampling) -> Sampling:
    """Sampling; what the message does not say is as in ``default``.

    Raises:
        InvalidRequest: a setting is out of its range.
    """
    said = {
        one.name: getattr(message, one.name)
        for one in fields(Sampling)
        if message.HasField(one.name)  # type: ignore[arg-type]
    }
    return replace(default, **said)


def known_to_pb(known: Known) -> canvas_pb.Known:
    """A known picture's place."""
    return canvas_pb.Known(
        picture=known.picture,
        top_px=known.top,
        left_px=known.left,
        height_px=known.height,
        width_px=known.width,
    )


def known_from_pb(message: canvas_pb.Known) -> Known:
    """A known picture's place.

    Raises:
        InvalidRequest: a number is out of its range.
    """
    return Known(
        message.picture, message.top_px, message.left_px, message.height_px, message.width_px
    )


def branch_to_pb(branch: Branch) -> canvas_pb.Branch:
    """Where a branch differs."""
    return canvas_pb.Branch(
        parent=branch.parent,
        top_px=branch.top,
        left_px=branch.left,
        height_px=branch.height,
        width_px=branch.width,
    )


def branch_from_pb(message: canvas_pb.Branch) -> Branch:
    """Where a branch differs.

    Raises:
        InvalidRequest: a number is out of its range.
    """
    return Branch(
        message.parent, message.top_px, message.left_px, message.height_px, message.width_px
    )


def region_to_pb(region: PromptRegion) -> canvas_pb.PromptRegion:
    """A region with words of its own."""
    return canvas_pb.PromptRegion(
        prompt=region.prompt,
        top_px=region.top,
        left_px=region.left,
        height_px=region.height,
        width_px=region.width,
        softness_px=region.softness,
    )


def region_from_pb(message: canvas_pb.PromptRegion) -> PromptRegion:
    """A region with words of its own.

    Raises:
        InvalidRequest: a number is out of its range.
    """
    place = (message.top_px, message.left_px, message.height_px, message.width_px)
    if message.HasField("softness_px"):
        return PromptRegion(message.prompt, *place, message.softness_px)
    return PromptRegion(message.prompt, *place)


def canvas_to_pb(canvas: Canvas) -> canvas_pb.Canvas:
    """A canvas, written out, with its id."""
    return canvas_pb.Canvas(
        id=canvas.id,
        model=canvas.model,
        world=canvas.world,
        seed=canvas.seed,
        prompt=canvas.prompt,
        extent=extent_to_pb(canvas.extent),
        order=canvas.order,
        frames=canvas.frames,
        sampling=sampling_to_pb(canvas.sampling),
        known=known_to_pb(canvas.known) if canvas.known else None,
        regions=[region_to_pb(region) for region in canvas.regions],
        motion=canvas.motion,
        branch=branch_to_pb(canvas.branch) if canvas.branch else None,
    )


def canvas_from_pb(message: canvas_pb.Canvas) -> Canvas:
    """A canvas that was written out in full.

    Raises:
        InvalidRequest: a field is out of its range.
    """
    return Canvas(
        model=message.model,
        world=message.world,
        seed=message.seed,
        extent=extent_from_pb(message.extent),
        prompt=message.prompt,
        order=message.order,
        frames=message.frames,
        sampling=sampling_from_pb(message.sampling, Sampling()),
        known=known_from_pb(message.known) if message.HasField("known") else None,
        regions=tuple(region_from_pb(region) for region in message.regions),
        motion=message.motion,
        branch=branch_from_pb(message.branch) if message.HasField("branch") else None,
    )


def model_to_pb(model: Model) -> generator_pb.Model:
    """A model's description."""
    return generator_pb.Model(
        digest=model.digest,
        worlds=[
            generator_pb.ModelWorld(name=name, extent=extent_to_pb(extent))
            for name, extent in sorted(model.worlds.items())
        ],
        sampling=sampling_to_pb(model.sampling),
        side_tok=model.side_tok,
        codes=model.codes,
        radius_tok=model.radius_tok,
        text_encoder=model.text_encoder,
    )


def model_from_pb(message: generator_pb.Model) -> Model:
    """A model's description."""
    return Model(
        digest=message.digest,
        worlds={world.name: extent_from_pb(world.extent) for world in message.worlds},
        sampling=sampling_from_pb(message.sampling, Sampling()),
        side_tok=message.side_tok,
        codes=message.codes,
        radius_tok=message.radius_tok,
        text_encoder=message.text_encoder,
    )
