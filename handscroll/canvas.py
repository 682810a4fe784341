"""The canvas spec: everything that decides what a canvas shows, and nothing else.

A canvas is immutable and its id is the SHA-256 of its canonical form: the same spec has the same
id everywhere. Whatever could change one token stands in it, sampling written out to the last
setting; whoever cannot honour it must refuse it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, TypeVar, get_args

from handscroll.course import course_of
from handscroll.errors import InvalidRequest, SpecMismatch
from handscroll.geometry import MAX_FRAMES, MAX_LEVEL, Extent, ExtentKind, Region
from handscroll.order import Order, order_named

MAX_PROMPT_CHARACTERS = 2000
MAX_REGIONS = 32
MAX_REGIONS_CHARACTERS = 8000
MAX_REGION_PX = 2**30
MAX_KNOWN_PX = 8192
MAX_KNOWN_PIXELS = 2**24
MAX_KNOWN_AT_PX = 2**24
STRETCH = 2
MAX_BRANCH_PX = 4096
FORMAT = "handscroll-canvas/1"

Dtype = Literal["float32", "bfloat16"]
TokenOrder = Literal["spread", "raster"]
_Spec = TypeVar("_Spec")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequest(message)


def _settle(spec: object, **types: type) -> None:
    """Check fields' types; whole numbers become floats where floats belong, for one spelling."""
    for name, kind in types.items():
        value = getattr(spec, name)
        if kind is float and type(value) in (int, float):
            try:
                value = float(value) + 0.0  # -0.0 has another spelling
            except OverflowError:
                raise InvalidRequest(f"{name} is too large") from None
            object.__setattr__(spec, name, value)
        _require(type(value) is kind, f"{name} must be {kind.__name__}, not {value!r}")


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        dtype: number format of the decoder.
        rows: patches in one call of the decoder; fewer are filled up, so that the arithmetic never
            depends on who else asks.
        group: tokens drawn in one step; a divisor of the patch's tokens.
        token_order: ``spread`` (far apart first) or ``raster``.
        temperature: divides the logits; 0 takes the likeliest code. Later frames are drawn colder.
        top_k: only the k likeliest codes; 0 for all.
        top_p: only the likeliest codes that together hold this probability.
        guidance: how far level 0 of the first frame goes from what it would be without field and
            words to what it is with them; 1 is no farther than they say.
        negative_prompt: what to move away from instead of no words, and what layouts should not
            show; empty for no text.
    """

    dtype: Dtype = "float32"
    rows: int = 1
    group: int = 16
    token_order: TokenOrder = "spread"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        _settle(
            self, rows=int, group=int, temperature=float, top_k=int, top_p=float, guidance=float
        )
        _settle(self, dtype=str, token_order=str, negative_prompt=str)
        _require(self.dtype in get_args(Dtype), f"dtype must be one of {get_args(Dtype)}")
        _require(
            self.token_order in get_args(TokenOrder),
            f"token_order must be one of {get_args(TokenOrder)}, not {self.token_order!r}",
        )
        _require(
            1 <= self.group <= 256 and 256 % self.group == 0,
            f"group must divide 256, not {self.group}",
        )
        _require(1 <= self.rows <= 256, f"rows must be 1 to 256, not {self.rows}")
        for name, low, high in (("temperature", 0, 4), ("top_p", 0, 1), ("guidance", 0, 20)):
            value = getattr(self, name)
            _require(
                math.isfinite(value) and low <= value <= high,
                f"{name} must be {low} to {high}, not {value}",
            )
        _require(self.top_p > 0, "top_p must be above 0")
        _require(
            self.temperature == 0 or self.temperature >= 0.01,
            f"temperature must be 0 or at least 0.01, not {self.temperature}",
        )
        _require(0 <= self.top_k <= 65536, f"top_k must be 0 to 65536, not {self.top_k}")
        _check_text("negative_prompt", self.negative_prompt)


def _check_text(name: str, text: str) -> None:
    _require(
        len(text) <= MAX_PROMPT_CHARACTERS,
        f"{name} may have {MAX_PROMPT_CHARACTERS} characters, not {len(text)}",
    )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is not Unicode text: {error.reason}") from error


def _check_digest(name: str, text: str) -> None:
    _require(
        len(text) == 64 and set(text) <= set("0123456789abcdef"),
        f"{name} is 64 hexadecimal digits, not {text!r:.80}",
    )


@dataclass(frozen=True)
class PromptRegion:
    """A rectangle of a canvas with a prompt of its own, in pixels of the finest level.

    Attributes:
        prompt: what it shows; empty for whatever comes.
        top, left: its corner.
        height, width: its size.
        softness: how wide its border is, half of it inside.
    """

    prompt: str
    top: int
    left: int
    height: int
    width: int
    softness: int = 256

    def __post_init__(self) -> None:
        _settle(self, prompt=str, top=int, left=int, height=int, width=int, softness=int)
        _check_text("a region's prompt", self.prompt)
        for name, low in (("height", 1), ("width", 1), ("softness", 0)):
            size = getattr(self, name)
            _require(
                low <= size <= MAX_REGION_PX,
                f"a region's {name} must be {low} to {MAX_REGION_PX} px, not {size}",
            )
        for name in ("top", "left"):
            place = getattr(self, name)
            _require(
                abs(place) <= MAX_REGION_PX,
                f"a region's {name} must be at most {MAX_REGION_PX} px from 0, not {place}",
            )


@dataclass(frozen=True)
class Known:
    """A picture that is given, and around which a canvas is painted (outpainting).

    Attributes:
        picture: digest of its pixels, see `handscroll.known.digest_of`.
        top, left: where it lies, in pixels of the finest level; multiples of ``16 * 2**finest``.
        height, width: its size in pixels.
    """

    picture: str
    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _settle(self, picture=str, top=int, left=int, height=int, width=int)
        _check_digest("a picture's digest", self.picture)
        for name in ("height", "width"):
            size = getattr(self, name)
            _require(
                1 <= size <= MAX_KNOWN_PX,
                f"the known picture's {name} must be 1 to {MAX_KNOWN_PX} px, not {size}",
            )
        _require(
            self.height * self.width <= MAX_KNOWN_PIXELS,
            f"the known picture may have {MAX_KNOWN_PIXELS} pixels, not {self.height} x "
            f"{self.width}",
        )


@dataclass(frozen=True)
class Branch:
    """Where a canvas differs from the one it was branched from, see `handscroll.branch`.

    Attributes:
        parent: id of that one.
        top, left: corner of the rectangle that is painted anew, in pixels of the finest level;
            multiples of ``16 * 2**finest``, as are its sizes.
        height, width: its size.
    """

    parent: str
    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _settle(self, parent=str, top=int, left=int, height=int, width=int)
        _check_digest("the id of a branch's parent", self.parent)
        for name in ("height", "width"):
            size = getattr(self, name)
            _require(
                1 <= size <= MAX_BRANCH_PX,
                f"a branch's {name} must be 1 to {MAX_BRANCH_PX} px, not {size}",
            )
        for name in ("top", "left"):
            place = getattr(self, name)
            _require(
                abs(place) <= MAX_REGION_PX,
                f"a branch's {name} must be at most {MAX_REGION_PX} px from 0, not {place}",
            )


@dataclass(frozen=True)
class Canvas:
    """One canvas.

    Attributes:
        model: digest of the checkpoint that paints it.
        world: one of the model's worlds.
        seed: 0 to 2**64 - 1.
        extent: what it covers, and its finest level.
        prompt: what it shows; empty for whatever comes.
        order: ``lattice``, or for bounded pictures ``raster`` or ``outward``.
        frames: 1 for a still canvas.
        sampling: how tokens are drawn.
        known: the picture to go on from, if there is one.
        regions: places with prompts of their own; the later lie over the earlier.
        motion: what moves from frame to frame and which way (`handscroll.course`), said of every
            frame but the first.
        branch: where it differs from the canvas it was branched from, if it was.

    Raises:
        InvalidRequest: any of these is out of its range, or they do not fit each other.
    """

    model: str
    world: str
    seed: int
    extent: Extent
    prompt: str = ""
    order: str = "lattice"
    frames: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    known: Known | None = None
    regions: tuple[PromptRegion, ...] = ()
    motion: str = ""
    branch: Branch | None = None

    def __post_init__(self) -> None:
        _settle(self, model=str, world=str, seed=int, prompt=str, order=str, frames=int, motion=str)
        _require(0 <= self.seed < 2**64, f"seed must be 0 to 2**64 - 1, not {self.seed}")
        _require(
            1 <= self.frames <= MAX_FRAMES, f"frames must be 1 to {MAX_FRAMES}, not {self.frames}"
        )
        for name in ("model", "world", "prompt", "motion"):
            _check_text(name, getattr(self, name))
        _require(
            self.frames > 1 or not self.motion,
            "motion takes a canvas of at least 2 frames; this one is still",
        )
        extent = self.extent
        _require(isinstance(extent, Extent), f"extent must be an Extent, not {extent!r}")
        _require(
            isinstance(self.sampling, Sampling), f"sampling must be Sampling, not {self.sampling!r}"
        )
        _settle(extent, kind=str, finest=int)
        _require(
            extent.kind in get_args(ExtentKind),
            f"extent must be one of {get_args(ExtentKind)}, not {extent.kind!r}",
        )
        _require(
            0 <= extent.finest <= MAX_LEVEL,
            f"finest level must be 0 to {MAX_LEVEL}, not {extent.finest}",
        )
        bounded = {"scroll": (True, False), "plane": (False, False), "picture": (True, True)}
        for name, size, wanted in zip(
            ("height", "width"),
            (extent.height_px, extent.width_px),
            bounded[extent.kind],
            strict=True,
        ):
            _require(
                (size is not None) == wanted,
                f"a {extent.kind} has {'a' if wanted else 'no'} {name}",
            )
            step = 16 * 2**extent.finest
            _require(
                size is None or (type(size) is int and size > 0 and size % step == 0),
                f"{name} must be a positive multiple of {step} px, not {size}",
            )
        _require(
            isinstance(self.regions, tuple)
            and all(isinstance(one, PromptRegion) for one in self.regions),
            f"regions must be a tuple of PromptRegion, not {self.regions!r:.80}",
        )
        _require(
            len(self.regions) <= MAX_REGIONS,
            f"a canvas may have {MAX_REGIONS} regions, not {len(self.regions)}",
        )
        if self.motion:
            for prompt in (self.prompt, *(one.prompt for one in self.regions)):
                _check_text("a prompt and what moves", f"{prompt}, {self.motion}")
        said = sum(len(one.prompt) for one in self.regions)
        _require(
            said <= MAX_REGIONS_CHARACTERS,
            f"the prompts of all regions may have {MAX_REGIONS_CHARACTERS} characters, not {said}",
        )
        if self.known is not None:
            self._check_known(self.known)
        if self.branch is not None:
            self._check_branch(self.branch)
        order_of(self)

    def _check_known(self, known: Known) -> None:
        """Refuse a picture that does not lie on the canvas."""
        _require(isinstance(known, Known), f"known must be Known, not {known!r}")
        step = 16 * 2**self.extent.finest
        for name, start, size, bound in zip(
            ("top", "left"),
            (known.top, known.left),
            (known.height, known.width),
            (self.extent.height_px, self.extent.width_px),
            strict=True,
        ):
            _require(
                start % step == 0 and abs(start) <= MAX_KNOWN_AT_PX,
                f"the known picture's {name} must be a multiple of {step} px and at most "
                f"{MAX_KNOWN_AT_PX} from 0, not {start}",
            )
            _require(size >= step, f"the known picture must be {step} px wide and high, not {size}")
            _require(
                bound is None or 0 <= start <= start + size <= bound,
                f"the known picture covers {start} to {start + size} px, and the "
                f"{self.extent.kind} only 0 to {bound}",
            )

    def _check_branch(self, branch: Branch) -> None:
        """Refuse a rectangle that is not one of whole tokens at every level, or not on the canvas;
        or a picture beside it, where the canvas is its parent."""
        _require(isinstance(branch, Branch), f"branch must be Branch, not {branch!r}")
        step, known = 16 * 2**self.extent.finest, self.known
        for name, length, start, size, bound in (
            ("top", "height", branch.top, branch.height, self.extent.height_px),
            ("left", "width", branch.left, branch.width, self.extent.width_px),
        ):
            _require(
                start % step == 0 and size % step == 0,
                f"a branch's {name} and {length} must be multiples of {step} px, not {start} and "
                f"{size}",
            )
            _require(
                bound is None or 0 <= start <= start + size <= bound,
                f"the branch covers {start} to {start + size} px, and the {self.extent.kind} only "
                f"0 to {bound}",
            )
            first, beyond = (getattr(known, name), getattr(known, length)) if known else (start, 0)
            _require(
                start <= first <= first + beyond <= start + size,
                f"the known picture covers {first} to {first + beyond} px, and the branch only "
                f"{start} to {start + size}",
            )

    def canonical(self) -> bytes:
        """The one spelling of this spec: JSON, sorted keys, no spaces, UTF-8; what is not, not."""
        spec = {"format": FORMAT, **asdict(self)}
        for name in ("known", "regions", "motion", "branch"):
            if not spec[name]:
                del spec[name]
        return json.dumps(
            spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()

    @property
    def id(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def parse(cls, text: str | bytes) -> Canvas:
        """Read a spec; its id may differ from that of a text that was not canonical.

        Raises:
            InvalidRequest: not such a spec.
        """
        try:
            spec = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"a canvas spec is JSON: {error}") from error
        _require(isinstance(spec, dict), "a canvas spec is a JSON object")
        found = spec.pop("format", None)
        _require(found == FORMAT, f"canvas format must be {FORMAT!r}, not {found!r}")
        spec["extent"] = read_spec(Extent, spec.get("extent", {}))
        spec["sampling"] = read_spec(Sampling, spec.get("sampling", {}))
        if spec.get("known") is not None:
            spec["known"] = read_spec(Known, spec["known"])
        if spec.get("branch") is not None:
            spec["branch"] = read_spec(Branch, spec["branch"])
        regions = spec.get("regions", [])
        _require(isinstance(regions, list), "regions must be a JSON array")
        spec["regions"] = tuple(read_spec(PromptRegion, one) for one in regions)
        return read_spec(cls, spec)


def order_of(canvas: Canvas) -> Order:
    """The order that a canvas names; ``outward`` begins around the known picture.

    Raises:
        InvalidRequest: see `order_named`.
    """
    around = None
    if canvas.known is not None:
        known = canvas.known
        around = Region(canvas.extent.finest, known.top, known.left, known.height, known.width)
    return order_named(canvas.order, canvas.extent, around, course_of(canvas.motion))


def check_learned(world: str, learned: Extent, wanted: Extent) -> None:
    """Refuse an extent that a world was not learned for.

    Args:
        world: its name.
        learned: what a canvas of it covers unless it says otherwise.
        wanted: what this one is to cover.

    Raises:
        SpecMismatch: finer than its sources, or of another height where it has one; a picture may
            be STRETCH times as high, or as low.
    """
    if wanted.finest > learned.finest:
        raise SpecMismatch(
            f"world {world} has levels 0 to {learned.finest}, the canvas wants level "
            f"{wanted.finest}"
        )
    height, asked = learned.size(0)[0], wanted.size(0)[0]
    if height is None or height == asked:
        return
    if wanted.kind != "picture":
        raise SpecMismatch(f"world {world} is {height} px high at level 0, the canvas {asked} px")
    assert asked is not None
    if not height <= STRETCH * asked <= STRETCH**2 * height:
        raise SpecMismatch(
            f"pictures of world {world} are {height // STRETCH} to {height * STRETCH} px high at "
            f"level 0, this one {asked} px"
        )


def read_spec(kind: type[_Spec], values: object) -> _Spec:
    """One dataclass from its JSON object; a misspelt field is an error, not ignored."""
    name = kind.__name__.lower()
    _require(isinstance(values, dict), f"{name} must be a JSON object")
    assert isinstance(values, dict)
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    strange = sorted(set(values) - known)
    _require(not strange, f"{name} has no field {', '.join(strange)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidRequest(f"{name} lacks a field: {error}") from error
