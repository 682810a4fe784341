"""What the design claims, tried: ``python -m training.ablation tokenizers|decoders|sampling
--out FOLDER``.

``tokenizers`` trains a few from nothing, alike but for one thing, and what decodes of the first of
them further, by other losses; ``decoders`` takes things away from a trained one, and trains it
further alike but for one thing; ``sampling`` paints with a trained one, with one setting changed.
All of it is small, made to compare and not to ship: figures are to be read within a table. Leaves
``tokenizers.md``, ``decoders.md`` and ``sampling.md``; a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from handscroll import checkpoint, cli, context
from handscroll.canvas import Sampling
from handscroll.checkpoint import Checkpoint
from handscroll.context import RING_TOK, Codes, Context, gather
from handscroll.decoder import Decoder
from handscroll.geometry import PATCH_PX, TILE_PX, Extent, Patch, Tile, window_patches
from handscroll.order import Lattice, Order
from handscroll.sample import PatchSampler
from handscroll.tokenizer import RADIUS_TOK, Tokenizer, TokenizerConfig
from training import pictures, quality, train_pixels, train_tokenizer
from training.captions import landscapes
from training.evaluate import Report
from training.examples import Dataset, Example, Examples
from training.features import Lite0, reconstructed
from training.likelihood import nats, together
from training.metrics import kid
from training.perceptual import Perceptual
from training.pictures import Picture
from training.run import Run
from training.samples import Studio
from training.train_decoder import batches, loss_of
from training.train_tokenizer import crop, evaluate, pixel_loss, to_float

SSIM_PX = 8
"""Side of the windows whose structure is compared."""
TIMES = 5
EXAMPLES = 96
SEEN_LEVELS = 2
"""Sampling is judged by the coarsest levels: what they lay out, the finer ones keep."""

app = typer.Typer(add_completion=False)


class LearnedCodes(nn.Module):
    """A codebook for each of the K codes, by cosine (ViT-VQGAN, Yu et al., arXiv 2110.04627).

    Takes the place of `handscroll.tokenizer.Quantizer`. A value nobody used in a step is moved to
    where one was wanted. ``pull`` is what the last call adds to the loss.
    """

    pull: Tensor | float = 0.0

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.codes = config.codes
        self.book_KVD = nn.Parameter(
            torch.randn(config.codes, config.vocabulary, len(config.levels))
        )

    def forward(self, z_BhwC: Tensor) -> tuple[Tensor, Tensor]:
        """Values carrying the gradient of the unquantised, and codes (B, h, w, K)."""
        z = F.normalize(z_BhwC.float().unflatten(-1, (self.codes, -1)), dim=-1)
        book_KVD = F.normalize(self.book_KVD.float(), dim=-1)
        codes = torch.einsum("bhwkd,kvd->bhwkv", z, book_KVD).argmax(-1)
        near = torch.stack([book[codes[..., k]] for k, book in enumerate(book_KVD)], dim=-2)
        if self.training:
            self.pull = F.mse_loss(near, z.detach()) + 0.25 * F.mse_loss(z, near.detach())
            self._restart(z.detach(), codes)
        return (z + (near - z).detach()).flatten(-2), codes

    def _restart(self, z_BhwKD: Tensor, codes_BhwK: Tensor) -> None:
        # Past autograd: what nobody used has no gradient.
        for k, book_VD in enumerate(self.book_KVD.data):
            used = torch.bincount(codes_BhwK[..., k].flatten(), minlength=len(book_VD)) > 0
            wanted = z_BhwKD[..., k, :].flatten(0, 2)
            picked = torch.randint(len(wanted), (int((~used).sum()),))
            book_VD[~used] = wanted[picked]


class Variant(NamedTuple):
    """One tokenizer to try."""

    name: str
    config: TokenizerConfig
    learned: bool = False

    def tokenizer(self) -> Tokenizer:
        """A new one."""
        model = Tokenizer(self.config)
        if self.learned:
            model.quantizer = LearnedCodes(self.config)  # type: ignore[assignment]
        return model


VARIANTS = (
    Variant("f=16, 4 codes of FSQ (ships)", TokenizerConfig()),
    Variant("f=16, 2 codes of FSQ", TokenizerConfig(codes=2)),
    Variant("f=16, 1 code of FSQ", TokenizerConfig(codes=1)),
    Variant("f=8, 1 code of FSQ", TokenizerConfig(downsampling=8, codes=1)),
    Variant("f=16, 4 learned codes", TokenizerConfig(levels=(2,) * 8), learned=True),
)


class Loss(NamedTuple):
    """What to train by what decodes."""

    name: str
    perceptual: float = 0.0
    critic: float = 0.0


LOSSES = (
    Loss("pixels alone"),
    Loss("and perceptual distance", train_pixels.PERCEPTUAL_WEIGHT),
    Loss(
        "and a critic (ships)",
        train_pixels.PERCEPTUAL_WEIGHT,
        train_pixels.CRITIC_WEIGHT,
    ),
)


def ssim(one_BHWC: Tensor, other_BHWC: Tensor) -> float:
    """Structural similarity of pictures in [-1, 1] (Wang et al. 2004), brightness alone."""
    a, b = (part.mean(-1)[:, None] / 2 for part in (one_BHWC, other_BHWC))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, SSIM_PX, stride=1)

    u, v = mean(a), mean(b)
    uu, vv, uv = mean(a * a) - u * u, mean(b * b) - v * v, mean(a * b) - u * v
    found = (2 * u * v + 1e-4) * (2 * uv + 9e-4) / ((u * u + v * v + 1e-4) * (uu + vv + 9e-4))
    return float(found.mean())


def seconds(work: Callable[[], object]) -> float:
    """Median time of some work, once it has been done before."""
    work()
    found = []
    for _ in range(TIMES):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return median(found)


@torch.inference_mode()
def decode_ms(model: Tokenizer) -> float:
    """Milliseconds to decode one tile's window, on one thread."""
    f = model.config.downsampling
    side = TILE_PX // f + 1 + 2 * RADIUS_TOK
    values = torch.zeros(1, side, side, model.from_scalars.in_features)
    inside = torch.ones(1, side, side, dtype=torch.bool)
    part = slice(RADIUS_TOK * f, RADIUS_TOK * f + TILE_PX)
    return 1000 * seconds(lambda: model.pixels(values, inside, (part, part)))


@app.command()
def tokenizers(
    data: Annotated[Path, typer.Option(help="packed data set")],
    out: Annotated[Path, typer.Option(help="folder for the runs and the report")],
    steps: int = 800,
    further: Annotated[int, typer.Option(help="steps by each of the losses")] = 400,
    batch: int = 12,
    model: Annotated[Path, typer.Option(help="checkpoint folder, shown beside")] = (
        checkpoint.SHIPPED
    ),
) -> None:
    """Train tokenizers from nothing, alike but for one thing, and one further by other losses."""
    train, held = pictures.split(data, None)
    lite0, shown = Lite0(out / "features", 2), [one for one in held if one.kind == "scroll"]
    finest = len(shown[0].levels) - 1
    wanted = lite0.describe(shown, finest)
    fixed = np.random.default_rng(1)
    real = to_float([crop(fixed, held) for _ in range(64)], "cpu")
    perceptual = Perceptual()

    def row(name: str, one: Tokenizer) -> tuple[str, ...]:
        psnr, usage, again = evaluate(one, real)
        with torch.inference_mode():
            pairs = zip(again.split(8), real.split(8), strict=True)
            distance = float(torch.stack([perceptual(*pair) for pair in pairs]).mean())
        bits = 8 * one.config.codes * (PATCH_PX // one.config.downsampling) ** 2
        return (
            name,
            f"{bits:,}",
            f"{psnr:.2f}",
            f"{ssim(again, real):.3f}",
            f"{distance:.4f}",
            kid(lite0.describe(shown, finest, reconstructed(one)), wanted).text(scale=1000),
            f"{usage:.0%}",
            f"{decode_ms(one):.0f}",
        )

    rows = []
    for number, variant in enumerate(VARIANTS):
        torch.manual_seed(0)
        run = Run(out / f"tokenizer-{number}", variant.tokenizer(), steps, 2e-3, "cpu")
        for step in run.steps_left(1e9):
            rng = np.random.default_rng((2, step))
            crops = to_float([crop(rng, train) for _ in range(batch)], "cpu")
            painted, _ = run.model(crops)
            run.update(pixel_loss(painted, crops) + getattr(run.model.quantizer, "pull", 0.0))
        trained = run.averaged(variant.tokenizer())
        if not variant.learned:
            train_tokenizer.save(trained, run.folder)
        rows.append(row(variant.name, trained))
    rows.append(row("what ships, trained longer and for texture", checkpoint.load(model).tokenizer))
    by_losses = []
    for number, loss in enumerate(LOSSES):
        folder = out / f"loss-{number}"
        train_pixels.main(
            data,
            out / "tokenizer-0",
            folder,
            steps=further,
            batch=batch,
            perceptual_weight=loss.perceptual,
            critic_weight=loss.critic,
            device="cpu",
        )
        by_losses.append(row(loss.name, train_tokenizer.load(folder)))
    columns = "bits a patch", "PSNR, dB", "SSIM", "perceptual", "KID", "values in use", "ms a tile"
    report = Report("Tokenizers")
    report.section(
        "Tokenizers",
        f"{steps} steps of {batch} crops each, from nothing, on pixels alone, but for the last. "
        "Figures are those of 64 held-out crops of 160 px; perceptual distance by the VGG-16 of "
        f"`training.perceptual`; KID × 1000 of {len(shown)} held-out landscapes at the finest "
        "level, encoded and decoded, against themselves; decoding on one thread.",
        ("", *columns),
        rows,
    )
    report.section(
        "Losses",
        f"The first of these, of which what decodes is trained {further} steps of {batch} crops "
        "further. The perceptual distance is what two of them are trained by; nothing is by KID.",
        ("", *columns),
        by_losses,
    )
    (out / "tokenizers.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


@dataclass(frozen=True)
class Colours(Order):
    """Phases by the place of a patch in a square of two by two."""

    phase: tuple[tuple[int, int], tuple[int, int]]

    def rank(self, patch: Patch) -> tuple[int, ...]:
        """Its phase."""
        return (self.phase[patch.row % 2][patch.col % 2],)


ORDERS: dict[str, Callable[[Extent], Order]] = {
    "one: nobody sees a neighbour": lambda extent: Colours(extent, ((0, 0), (0, 0))),
    "two: a chequerboard": lambda extent: Colours(extent, ((0, 1), (1, 0))),
    "three: seed, bridge, fill (ships)": Lattice,
    "four: one after another": lambda extent: Colours(extent, ((0, 2), (3, 1))),
}


@contextmanager
def instead(module: ModuleType, name: str, value: float) -> Iterator[None]:
    """Have another value of a constant, in what is done meanwhile."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


class Phased(Examples):
    """Clean held-out examples in another order than the lattice."""

    order: Callable[[Extent], Order] = Lattice

    def _seen(self, rng: np.random.Generator, extent: Extent, patch: Patch) -> tuple[Patch, ...]:
        return self.order(extent).seen(patch)


def phase_rows(model: Decoder, data: Dataset) -> Iterator[tuple[str, ...]]:
    """What each order costs, and what it lets patches know."""
    for name, order in ORDERS.items():
        held = Phased(data, held_out=True, clean=True)
        held.order = order
        found = nats(model, held.always(EXAMPLES))
        count, waves = costs(order(_plane(data)), model.config.side)
        yield name, f"{found:.3f}", f"{count:.1f}", str(waves)


def costs(order: Order, side: int) -> tuple[float, int]:
    """Patches behind a cold tile of the finest level, and how many wait for one another at most.

    The first is a mean over tiles, as what stands behind one may depend on where it lies.
    """
    extent, counts, waves = order.extent, [], []
    for row in range(1000, 1000 + 2**extent.finest):
        for col in range(1000, 1000 + 2**extent.finest):
            tile = Tile(extent.finest, row, col)
            wanted = window_patches(tile, extent, PATCH_PX // side, RADIUS_TOK)
            counts.append(len(order.cone(wanted)))
            waves.append(len(order.waves(wanted)))
    return float(np.mean(counts)), max(waves)


def _plane(data: Dataset) -> Extent:
    return next(world.extent for world in data.worlds if world.extent.kind == "plane")


def _always(codes: Codes) -> Callable[[Patch], Codes]:
    return lambda patch: codes


def draw_s(model: Decoder, seen: Context, group: int) -> float:
    """Seconds to draw a patch, so many tokens at a time, on one thread."""
    sampler = PatchSampler(model, 0, 0, Sampling(group=group))
    return seconds(lambda: sampler.draw([seen]))


def step_rows(model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[str, ...]]:
    """What drawing more tokens at a time costs in surprise, and saves in time."""
    full = max(examples, key=lambda one: len(one.context.codes_NK)).context
    for group in (32, 16, 8, 1):
        found = nats(model, [together(one, group) for one in examples])
        took = draw_s(model, full, group)
        served = " (ships)" if group == Sampling.group else ""
        yield f"{256 // group} steps of {group}{served}", f"{found:.3f}", f"{took * 1000:.0f}"


def downsampling_rows(model: Decoder, extent: Extent) -> Iterator[tuple[str, ...]]:
    """What a patch of 32 x 32 tokens of one code takes, by as large a decoder, not trained."""
    fill = Patch(extent.finest, 0, 1, 1)
    for name, side, codes, group in (
        ("f=16, 4 codes, 16 steps of 16 (ships)", 16, 4, 16),
        ("f=8, 1 code, 64 steps of 16", 32, 1, 16),
        ("f=8, 1 code, 16 steps of 64", 32, 1, 64),
    ):
        config = replace(model.config, side=side, codes=codes)
        drawn = np.zeros((side, side, codes), np.uint8)
        near = gather(fill, Lattice(extent), side, _always(drawn), None)
        took = draw_s(Decoder(config).eval(), near, group)
        yield name, str(side**2 * codes), f"{took * 1000:.0f}"


class Further(NamedTuple):
    """One way to train a decoder further."""

    name: str
    ring: int = RING_TOK
    hidden: tuple[str, ...] = ()


WAYS = (
    Further("a ring of 4 tokens, with the level above (ships)"),
    Further("a ring of 8 tokens", ring=8),
    Further("a ring of 2 tokens", ring=2),
    Further("without the level above", hidden=("parent",)),
    Further("without the ring", hidden=("ring",)),
)


def further_rows(
    model: Decoder, data: Dataset, out: Path, steps: int, batch: int
) -> Iterator[tuple[str, ...]]:
    """Held-out surprise of decoders that were trained further, each in its way."""
    for number, way in enumerate(WAYS):
        with instead(context, "RING_TOK", way.ring):
            held = Examples(data, held_out=True, clean=True)
            kept = [one.without(*way.hidden) for one in held.always(EXAMPLES)]
            torch.manual_seed(0)
            start = Decoder(model.config)
            start.load_state_dict(model.state_dict())
            run = Run(out / f"decoder-{number}", start, steps, 5e-4, "cpu", muon=("blocks",))
            before = nats(model, kept)
            for drawn in batches(Examples(data), batch, run.steps_left(1e9)):
                run.model.train()
                shown = [one.without(*way.hidden) for one in drawn]
                run.update(loss_of(run.model, shown, "cpu").mean())
            after = nats(run.averaged(Decoder(model.config)), kept)
        sees = np.mean([len(one.context.codes_NK) + len(one.context.field_MV) for one in kept])
        yield way.name, f"{sees:.0f}", f"{before:.3f}", f"{after:.3f}"


@app.command()
def decoders(
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    out: Annotated[Path, typer.Option(help="folder for the runs and the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    steps: int = 200,
    batch: int = 8,
) -> None:
    """Take things away from a trained decoder, and train it further alike but for one thing."""
    torch.set_num_threads(1)
    loaded, data = checkpoint.load(model), Dataset.load(tokens)
    decoder = loaded.decoder
    examples = Examples(data, held_out=True, clean=True).always(EXAMPLES)
    report = Report(f"Decoders, from model `{loaded.digest[:16]}…`")
    about = f"Nats per code of {EXAMPLES} held-out patches; lower is better."
    report.section(
        "Phases",
        f"{about} What a cold tile of a plane's finest level stands on, and how many of these "
        "patches must wait for one another at most.",
        ("phases", "nats", "patches behind a cold tile", "one after another"),
        phase_rows(decoder, data),
    )
    report.section(
        "Tokens at a time",
        f"{about} Milliseconds for a patch that sees all it can, on one thread.",
        ("", "nats", "ms a patch"),
        step_rows(decoder, examples),
    )
    report.section(
        "Smaller tokens",
        "Milliseconds for a patch that sees all it can, on one thread, with as large a decoder, "
        "not trained; what f=8 is worth is said of the tokenizers.",
        ("", "codes a patch", "ms a patch"),
        downsampling_rows(decoder, _plane(data)),
    )
    report.section(
        "What a patch sees",
        f"{about} Before and after {steps} steps of {batch} more, in each of which it saw what the "
        "line says.",
        ("", "entries of its context", "nats before", "nats after"),
        further_rows(decoder, data, out, steps, batch),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "decoders.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


class Setting(NamedTuple):
    """One way to draw from a trained decoder: what is changed of how it paints best."""

    name: str
    changes: dict[str, Any] = {}


SETTINGS = (
    Setting("as it ships"),
    Setting("temperature 0.85", {"temperature": 0.85}),
    Setting("temperature 1.15", {"temperature": 1.15}),
    Setting("top-p 0.9", {"top_p": 0.9}),
    Setting("top-p 1", {"top_p": 1.0}),
    Setting("guidance 1", {"guidance": 1.0}),
    Setting("guidance 4", {"guidance": 4.0}),
)
GUIDANCES = (1.0, 2.5, 4.0)


def closeness_rows(
    loaded: Checkpoint, lite0: Lite0, real: Sequence[Picture], out: Path, number: int
) -> Iterator[tuple[str, ...]]:
    """KID x 1000 of what each setting paints at the coarsest levels, beside that of blur."""
    levels = range(SEEN_LEVELS)
    wanted = [lite0.describe(real, level) for level in levels]
    for setting in SETTINGS:
        changed = replace(loaded, sampling=replace(loaded.sampling, **setting.changes))
        painted = Studio(changed, out, 2).pictures(real[0].world, number, SEEN_LEVELS)
        found = (kid(lite0.describe(painted, level), wanted[level]) for level in levels)
        yield setting.name, *(one.text(scale=1000) for one in found)
    blurs = (kid(lite0.describe(real, level, quality.YARDSTICK), wanted[level]) for level in levels)
    yield f"real ones, {quality.YARDSTICK.name}", *(one.text(scale=1000) for one in blurs)


def guidance_rows(
    loaded: Checkpoint,
    lite0: Lite0,
    real: Sequence[Picture],
    tags: dict[str, tuple[str, ...]],
    out: Path,
    number: int,
) -> Iterator[tuple[str, ...]]:
    """How well prompts are followed at each guidance: AUC by prompt, and their mean."""
    for guidance in GUIDANCES:
        changed = replace(loaded, sampling=replace(loaded.sampling, guidance=guidance))
        studio = Studio(changed, out, 2)
        found = list(quality.following(lite0, studio, real[0].world, real, tags, number))
        every = [one.painted.value for one in found]
        yield f"{guidance:g}", *(f"{value:.2f}" for value in every), f"{fmean(every):.2f}"


@app.command()
def sampling(
    data: Annotated[Path, typer.Option(help="packed data set")],
    out: Annotated[Path, typer.Option(help="folder for what is painted and the report")],
    model: Annotated[Path, typer.Option(help="checkpoint folder")] = checkpoint.SHIPPED,
    number: Annotated[int, typer.Option("--samples", min=5, help="seeds by setting")] = 16,
) -> None:
    """Paint landscapes with a trained model, with one setting of its sampling changed."""
    loaded, lite0 = checkpoint.load(model), Lite0(out / "features", 2)
    every = [one for one in pictures.load(data) if one.kind == "scroll"]
    held = [one for one in every if one.held_out]
    tags = {name: one.tags for name, one in landscapes(data / "landscapes/captions.csv").items()}
    report = Report(f"Sampling, by model `{loaded.digest[:16]}…`")
    report.section(
        "Closeness to real pictures",
        f"KID × 1000 of {number} landscapes against {len(held)} held-out photographs, as "
        "`training.evaluate` measures it.",
        ("", *(f"level {level}" for level in range(SEEN_LEVELS))),
        closeness_rows(loaded, lite0, held, out, number),
    )
    report.section(
        "Guidance",
        f"AUC of prompts, of {number} seeds, as `training.evaluate` measures it. Words pick a "
        "layout whatever the guidance; it is for how far the decoder follows layout and words.",
        ("guidance", *quality.PROMPTS, "mean"),
        guidance_rows(loaded, lite0, every, tags, out, number),
    )
    (out / "sampling.md").write_text(report.text(), encoding="utf-8")
    typer.echo(report.text())


if __name__ == "__main__":
    cli.run(app)
