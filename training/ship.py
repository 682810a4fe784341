"""Make a checkpoint of trained parts: ``python -m training.ship --tokenizer RUN --decoder RUN
--tokens FILE --data DATA --out FOLDER``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from handscroll import checkpoint
from handscroll.canvas import Sampling
from handscroll.checkpoint import World
from handscroll.cli import run
from handscroll.errors import InvalidRequest
from handscroll.text import TextEncoder
from handscroll.tokenizer import Tokenizer
from training import pictures, train_decoder, train_tokenizer
from training.examples import Dataset
from training.pieces import pieces_of


def main(
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    decoder: Annotated[Path, typer.Option(help="run folder of training.train_decoder")],
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    data: Annotated[Path, typer.Option(help="the pictures that were encoded")],
    out: Annotated[Path, typer.Option(help="checkpoint folder to write")],
    temperature: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 1.0,
    top_p: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 0.99,
    guidance: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 2.5,
    group: Annotated[int, typer.Option(help="tokens drawn in one step")] = Sampling.group,
) -> None:
    """Put tokenizer, decoder, palettes and pieces of pictures into one checkpoint."""
    model = train_tokenizer.load(tokenizer)
    digest = checkpoint.save(
        out,
        model,
        train_decoder.load(decoder),
        [with_pieces(world, model, data) for world in Dataset.load(tokens).worlds],
        TextEncoder().digest,
        Sampling(group=group, temperature=temperature, top_p=top_p, guidance=guidance),
    )
    typer.echo(f"{out}: model {digest}")


def with_pieces(world: World, tokenizer: Tokenizer, data: Path) -> World:
    """A plane with pieces of the pictures that it was learned from, of all levels but the coarsest.

    A scroll is as it was: landscapes have skies, and in these a block of grain is seen to be one.

    Args:
        world: the world.
        tokenizer: what loses some of them.
        data: the packed data set, or a folder of pictures.

    Raises:
        InvalidRequest: it has none of this world.
    """
    if world.extent.height_px is not None:
        return world
    loaded = pictures.load(data, world.name, "plane")
    found = [one for one in loaded if one.world == world.name and not one.held_out]
    if not found:
        held = ", ".join(sorted({one.world for one in loaded})) or "none"
        raise InvalidRequest(f"{data} has no pictures of the world {world.name!r}, but of {held}")
    by_level = {
        level: pieces
        for level in range(1, world.extent.finest + 1)
        if (pieces := pieces_of(tokenizer, found, level)) is not None
    }
    return replace(world, pieces=by_level)


if __name__ == "__main__":
    run(lambda: typer.run(main))
