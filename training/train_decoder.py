"""Train the decoder: ``python -m training.train_decoder --tokens FILE --tokenizer RUN
--out runs/decoder``.

Cross-entropy of every code of every token of a patch, each given the steps before its own, and in
later frames of what becomes of every token.
Examples are drawn a few batches ahead and sorted by length, so that little is padding. Leaves
``decoder.safetensors`` and ``decoder.json``, the curves (in nats per code), and sheets of samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from handscroll import cli
from handscroll.checkpoint import Checkpoint
from handscroll.decoder import LAST, SIZES, Batch, Decoder, DecoderConfig
from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX
from handscroll.sample import collate
from handscroll.tokenizer import Tokenizer
from training import samples, train_tokenizer
from training.examples import Dataset, Example, Examples, Fate
from training.run import Run, precision

AHEAD = 8
HELD_OUT = 64
"""How many patches the curves are of."""
GUIDED = 2.0
"""What landscapes are trained to be guided by (`DecoderConfig.guided`).

A small decoder believes the level above too little, and smears what should be an edge. Guidance
(Ho and Salimans, arXiv 2207.12598) asks it twice, at twice the cost. Here it learns to answer
guided at once (Chen et al., arXiv 2501.15420, guidance-free training). Planes are not: maps have
edges enough, and guided ones had foam along every coast. Nor are later frames: most of what they
show is the first frame's.
"""


def loss_of(model: Decoder, examples: Sequence[Example], device: str) -> Tensor:
    """Cross-entropy in nats per code that is drawn: one value (B,) for each example.

    While a model is in training, that of fates, in nats per token, is added.
    """
    config = model.config
    tokens = max(len(one.codes_TK) for one in examples)
    codes = np.zeros((len(examples), tokens, config.codes), np.int64)
    place = np.zeros((len(examples), tokens, 2), np.float32)
    group = np.full((len(examples), tokens), LAST)
    drawn = np.zeros((len(examples), tokens), bool)
    fate = np.full((len(examples), tokens), Fate.UNKNOWN)
    for row, one in enumerate(examples):
        count = len(one.codes_TK)
        codes[row, :count], place[row, :count] = one.codes_TK, one.place_T2
        group[row, :count], drawn[row, :count] = one.group_T, one.drawn_T
        fate[row, :count] = one.fate_T
    target = torch.from_numpy(codes).to(device)
    asking = target, torch.from_numpy(place).to(device), torch.from_numpy(group).to(device)
    with precision(device, exact=not model.training):
        logits, fates = model(_batch(examples, config, device), *asking)
        logits = _unguided(model, examples, logits.float(), asking, device)
    loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
    asked = torch.from_numpy(drawn).to(device)[..., None]
    loss = loss.view_as(target) * asked
    loss = loss.sum(dim=(1, 2)) / (asked.sum(dim=(1, 2)).clamp(min=1) * config.codes)
    if not model.training:
        return loss
    return loss + fate_loss(fates.float(), torch.from_numpy(fate).to(device))


def _batch(examples: Sequence[Example], config: DecoderConfig, device: str) -> Batch:
    """What the patches of examples see."""
    contexts = [one.context for one in examples]
    worlds, texts = [one.world for one in examples], [one.text for one in examples]
    length = max(len(one.codes_NK) + len(one.field_MV) for one in contexts)
    return collate(contexts, worlds, texts, config, length).to(device)


def _unguided(
    model: Decoder,
    examples: Sequence[Example],
    guided_BTKV: Tensor,
    asking: tuple[Tensor, Tensor, Tensor],
    device: str,
) -> Tensor:
    """The logits (B, T, K, V) that a model's answers would be guided from; others as they are.

    Where finer levels are guided g times, they answer `without + g * (with - without)` of what they
    would answer with the level above and without it. Solved for `with`, which is to meet the real
    tokens: so what is drawn from comes out guided. Through `without` nothing is learned here, but
    in the examples whose level above is dropped.
    """
    far_B = [model.config.guided[one.world] for one in examples]
    rows = [
        row
        for row, one in enumerate(examples)
        if far_B[row] > 1 and one.has("parent") and one.context.patch.frame == 0
    ]
    if not rows:
        return guided_BTKV
    alone = [examples[row].without("parent") for row in rows]
    share_B, without_BTKV = guided_BTKV.new_ones(len(examples)), guided_BTKV.detach().clone()
    share_B[rows] = 1 / guided_BTKV.new_tensor(far_B)[rows]
    with torch.no_grad():
        batch = _batch(alone, model.config, device)
        # As it is written: compiled, it would be compiled once more for each shape.
        without_BTKV[rows] = model.forward(batch, *(one[rows] for one in asking))[0].float()
    return without_BTKV + share_B[:, None, None, None] * (guided_BTKV - without_BTKV)


def fate_loss(logits_BT2: Tensor, fate_BT: Tensor) -> Tensor:
    """Cross-entropy (B,) of fates in nats per token, where they can be told."""
    is_new, has_come = fate_BT == Fate.NEW, fate_BT == Fate.CAME
    target = torch.stack((is_new, has_come), dim=-1).float()
    loss = F.binary_cross_entropy_with_logits(logits_BT2, target, reduction="none")
    told = torch.stack((fate_BT != Fate.UNKNOWN, has_come | (fate_BT == Fate.STOOD)), dim=-1)
    each = (loss * told).sum(dim=1) / told.sum(dim=1).clamp(min=1)
    return each.sum(dim=-1)


def batches(
    examples: Examples, batch: int, steps: Iterable[int], seed: int = 0
) -> Iterator[list[Example]]:
    """The examples of each step; those of a batch are about as long."""
    upcoming: list[list[Example]] = []
    for step in steps:
        if not upcoming:
            rng = np.random.default_rng((2, seed, step))
            drawn = [examples.draw(rng) for _ in range(batch * AHEAD)]
            drawn.sort(key=lambda one: len(one.context.codes_NK) + len(one.codes_TK))
            upcoming = [drawn[start : start + batch] for start in range(0, len(drawn), batch)]
            rng.shuffle(upcoming)
        yield upcoming.pop()


@torch.inference_mode()
def evaluate(model: Decoder, examples: Sequence[Example], device: str, batch: int = 4) -> float:
    """Mean loss over examples, in nats per code, in f32; NaN without any."""
    if not examples:
        return float("nan")
    model.eval()
    ordered = sorted(examples, key=lambda one: len(one.context.codes_NK))
    losses = [
        loss_of(model, ordered[start : start + batch], device)
        for start in range(0, len(ordered), batch)
    ]
    return float(torch.cat(losses).mean())


def sample_sheet(model: Decoder, data: Dataset, tokenizer: Tokenizer, out: Path) -> None:
    """Seeds 0 to 7 of each world at level 0, painted on the CPU."""
    worlds = {world.name: world for world in data.worlds}
    painter = deepcopy(model).cpu()
    checkpoint = Checkpoint("in training", tokenizer, painter, worlds, text_encoder="")
    threads = torch.get_num_threads()  # a painter works on one
    for name in worlds:
        shown = samples.seeds(checkpoint, name, 0, range(8), checkpoint.sampling)
        Image.fromarray(samples.rows(shown, 4)).save(out / f"samples_{name}.png")
    torch.set_num_threads(threads)


def save(model: Decoder, folder: Path) -> None:
    """Leave a finished decoder in its run's folder."""
    save_file(model.state_dict(), folder / "decoder.safetensors")
    (folder / "decoder.json").write_text(json.dumps(asdict(model.config), indent=2) + "\n")


def load(folder: Path) -> Decoder:
    """The decoder that a finished run left in its folder."""
    model, weights = _left(folder)
    model.load_state_dict(weights)
    return model.eval()


def begin_with(folders: Sequence[Path], guided: tuple[float, ...]) -> Decoder:
    """The mean of finished runs' decoders, to be trained further, so guided.

    Layers that they lack begin as new ones. The mean of decoders each trained from the one before
    is better than any of them (model soups, Wortsman et al., arXiv 2203.05482).

    Raises:
        InvalidRequest: they are of several shapes.
    """
    models, weights = zip(*map(_left, folders), strict=True)
    configs = [replace(model.config, guided=guided) for model in models]
    if any(config != configs[0] for config in configs):
        raise InvalidRequest("--init must name decoders of one shape")
    mean = {name: sum(one[name] for one in weights) / len(weights) for name in weights[0]}
    models[0].load_state_dict({**models[0].state_dict(), **mean})
    models[0].config = configs[0]
    return models[0]


def _left(folder: Path) -> tuple[Decoder, dict[str, Tensor]]:
    """A new decoder of the shape of a finished run's, and that run's weights."""
    config = DecoderConfig(**json.loads((folder / "decoder.json").read_text()))
    return Decoder(config), load_file(folder / "decoder.safetensors")


def main(
    tokens: Annotated[Path, typer.Option(help="file written by training.encode")],
    tokenizer: Annotated[Path, typer.Option(help="run folder of training.train_tokenizer")],
    out: Annotated[Path, typer.Option(help="run folder; an earlier run there is resumed")],
    size: Annotated[str, typer.Option(help=f"one of {', '.join(SIZES)}")] = "XS",
    steps: int = 4000,
    batch: int = 8,
    learning_rate: float = 2e-3,
    init: Annotated[
        list[Path] | None,
        typer.Option(help="run folder whose decoder a new run starts from; of several, the mean"),
    ] = None,
    parents: Annotated[
        Path | None, typer.Option(help="file written by training.parents, to stand on")
    ] = None,
    moving: Annotated[float, typer.Option(help="share of examples from clips")] = 0.25,
    seed: Annotated[int, typer.Option(help="another one draws other examples")] = 0,
    only: Annotated[str, typer.Option(help="layer to train; all others stay as they are")] = "",
    compiled: Annotated[
        bool, typer.Option("--compile", help="a third faster; takes a C++ compiler and a minute")
    ] = False,
    minutes: Annotated[float, typer.Option(help="stop, resumable, after this long")] = 1e9,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
) -> None:
    """Train the decoder, or go on training it."""
    data = Dataset.load(tokens, parents)
    torch.manual_seed(0)
    guided = tuple(1.0 if world.extent.height_px is None else GUIDED for world in data.worlds)
    config = replace(
        SIZES[size],
        worlds=len(data.worlds),
        side=PATCH_PX // data.tokenizer["downsampling"],
        codes=data.tokenizer["codes"],
        vocabulary=math.prod(data.tokenizer["levels"]),
        guided=guided,
    )
    model = begin_with(init, guided) if init else Decoder(config)
    if only:
        layers = dict(model.named_children())
        if only not in layers:
            raise InvalidRequest(f"--only must be one of {', '.join(layers)}, not {only}")
        model.requires_grad_(False)
        layers[only].requires_grad_(True)
    run = Run(out, model, steps, learning_rate, device, muon=("blocks",))
    if compiled:
        run.model.compile(dynamic=True)
    average = Decoder(model.config).to(device)
    examples = Examples(data, moving=moving)
    held, held_moving = (
        Examples(data, held_out=True, clean=True, moving=clips).always(HELD_OUT)
        for clips in (0.0, 1.0)
    )
    for drawn in batches(examples, batch, run.steps_left(minutes), seed):
        run.model.train()
        share = drawn[run.rank :: run.processes]
        loss = loss_of(run.model, share, device).mean()
        run.update(loss)
        if run.rank:
            continue
        if run.step % 200 == 0 or run.step == steps:
            run.averaged(average)
            run.log(
                loss=loss.item(),
                held_out=evaluate(average, held, device),
                moving=evaluate(average, held_moving, device),
            )
        if run.step % 1000 == 0 or run.step == steps:
            run.averaged(average)
            sample_sheet(average, data, train_tokenizer.load(tokenizer), out)
    if run.rank:
        return
    save(run.averaged(average), out)


if __name__ == "__main__":
    cli.run(lambda: typer.run(main))
