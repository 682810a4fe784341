"""Make a checkpoint of trained parts: ``python -m training.ship --tokenizer RUN --decoder RUN
--tokens FILE --out FOLDER``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handscroll import checkpoint
from handscroll.canvas import Sampling
from handscroll.cli import run
from handscroll.text import TextEncoder
from training import train_decoder, train_tokenizer
from training.examples import Dataset


def main(
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    decoder: Annotated[Path, typer.Option(help="run folder of training.train_decoder")],
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    out: Annotated[Path, typer.Option(help="checkpoint folder to write")],
    temperature: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 1.0,
    top_p: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 0.99,
    guidance: Annotated[float, typer.Option(help="of the sampling it paints best with")] = 2.5,
    group: Annotated[int, typer.Option(help="tokens drawn in one step")] = Sampling.group,
) -> None:
    """Put tokenizer, decoder and palettes into one checkpoint."""
    data = Dataset.load(tokens)
    digest = checkpoint.save(
        out,
        train_tokenizer.load(tokenizer),
        train_decoder.load(decoder),
        data.worlds,
        TextEncoder().digest,
        Sampling(group=group, temperature=temperature, top_p=top_p, guidance=guidance),
    )
    typer.echo(f"{out}: model {digest}")


if __name__ == "__main__":
    run(lambda: typer.run(main))
