"""A folder of pictures to a checkpoint that serves: the steps of training, one after another.

They are those of training/README.md, each in its folder in ``OUT/work``, and each goes on where it
was. Unless it is told to begin from nothing, the new world starts as the shipped one that is most
like it: the tokenizer is taken as it is, and the decoder, which paints one world now, goes on
learning.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from handscroll import checkpoint
from handscroll.checkpoint import Checkpoint
from handscroll.cli import write_file
from handscroll.decoder import Decoder
from handscroll.errors import InvalidRequest
from handscroll.geometry import PATCH_PX, Region
from handscroll.picture import to_png
from handscroll.text import TextEncoder
from training import encode, samples, ship, train_decoder, train_tokenizer
from training.folder import CAPTIONS, Tell, WorldKind, files, look
from training.run import steps_made

SEEDS = 3
"""Pictures on the sheet of samples."""
COUNTED_AT = (0.1, 0.6)
"""Shares of a training's time at which its steps are counted. The learning rate falls later."""
LEAST_SHARE = 0.1
"""Of all the time, for the decoder, however long all else took."""
TOKENIZER_SHARE = 0.45
"""Of all the time, for the tokenizer, where there is none to begin with."""
TRAINED_AT = 0.85
"""The share of all the time at which training ends; the rest is for the samples."""
TOKENIZER_STEPS, DECODER_STEPS = 6000, 4000
"""At most; a few pictures are known by heart long before."""
LEARNING_RATE = 1e-3
"""Of a decoder that has learned already."""


@dataclass(frozen=True)
class Commission:
    """A world to be made of pictures.

    Attributes:
        pictures: the folder they are in.
        out: where the checkpoint goes.
        kind: ``scroll`` or ``plane``.
        name: of the world.
        from_nothing: start without the shipped weights.
        minutes: how long it may take in all.
        base: the checkpoint that it starts from.

    Raises:
        InvalidRequest: the name or the minutes are none.
    """

    pictures: Path
    out: Path
    kind: WorldKind
    name: str
    from_nothing: bool
    minutes: float
    base: Path = checkpoint.SHIPPED
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .-]{0,63}", self.name):
            raise InvalidRequest(
                "a world's --name has 1 to 64 letters, digits, spaces, points or dashes, "
                f"not {self.name!r:.80}"
            )
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InvalidRequest(f"--minutes must be above 0, not {self.minutes}")

    @property
    def work(self) -> Path:
        """Where the steps keep what they do."""
        return self.out / "work"

    def carry_out(self, tell: Tell) -> None:
        """Make the world, or go on making it.

        Args:
            tell: called with a line for people on each step.

        Raises:
            InvalidRequest: the pictures will not do, or ``out`` holds something else.
            Unavailable: the text encoder is not installed.
        """
        TextEncoder()  # wanted at the very end: better missed now
        base = checkpoint.load(self.base)
        self._prepare(base, tell)
        tokenizer, tokens = self.work / "tokenizer", self.work / "tokens.safetensors"
        if not tokens.exists():
            self._write_tokens(base, tokenizer, tokens, tell)
        given: dict[str, Any] = {"tokens": tokens, "tokenizer": tokenizer}
        if not self.from_nothing:
            given |= {"init": [self.work / "start"], "learning_rate": LEARNING_RATE}
        passed = (time.monotonic() - self.began) / 60
        minutes = max(LEAST_SHARE, TRAINED_AT - passed / self.minutes) * self.minutes
        tell(f"Learning to paint: at most {minutes:.1f} minutes")
        decoder = self.work / "decoder"
        self._train(train_decoder.main, decoder, minutes, DECODER_STEPS, tell, **given)
        (self.out / "config.json").unlink(missing_ok=True)  # no checkpoint until it is whole again
        ship.main(tokenizer, decoder, tokens, self.work / "pictures", self.out)
        self._show(tell)

    def _write_tokens(self, base: Checkpoint, tokenizer: Path, tokens: Path, tell: Tell) -> None:
        """Obtain a tokenizer, and write the pictures with it; it stays as it is from here on."""
        data = self.work / "pictures"
        if self.from_nothing:
            minutes = TOKENIZER_SHARE * self.minutes
            tell(f"Learning to write pictures as tokens: at most {minutes:.1f} minutes")
            given = {"data": data, "world": self.kind}
            self._train(train_tokenizer.main, tokenizer, minutes, TOKENIZER_STEPS, tell, **given)
        else:
            begin_with(base, self.kind, tokenizer, self.work / "start")
        tell("Writing the pictures as tokens")
        aside = tokens.with_suffix(".new")
        encode.main(data, tokenizer, aside, world=self.name, kind=self.kind)
        aside.replace(tokens)

    def _prepare(self, base: Checkpoint, tell: Tell) -> None:
        """Bring the pictures to size, once; a folder that holds something else is left alone."""
        task = {
            "pictures": _digest(self.pictures),
            "kind": self.kind,
            "name": self.name,
            "from_nothing": self.from_nothing,
            "base": base.digest,
        }
        path = self.work / "task.json"
        if path.exists():
            there = json.loads(path.read_text())
            other = sorted(name for name in task if task[name] != there.get(name))
            if other:
                raise InvalidRequest(
                    f"{self.out} was begun with other {', '.join(other)}: name another --out"
                )
            return
        if self.out.is_dir() and any(self.out.iterdir()) and not self.work.is_dir():
            raise InvalidRequest(f"--out {self.out} is not empty, and no world was begun in it")
        found = look(self.pictures, self.kind, tell)
        tell(
            f"Bringing {len(found.sizes)} pictures to size, for levels 0 to "
            f"{found.extent.finest}: about a second each"
        )
        sized = self.work / "pictures"
        try:
            shutil.rmtree(sized, ignore_errors=True)
            sized.mkdir(parents=True)
            captions = io.StringIO()
            writer = csv.writer(captions)
            writer.writerow(("file", "caption"))
            for file, image, caption in found.sources():
                name = f"{file}.png"
                image.save(sized / name, compress_level=1)
                writer.writerow((name, caption))
        except OSError as error:
            raise InvalidRequest(f"cannot write {sized}: {error.strerror}") from error
        write_file(sized / CAPTIONS, [captions.getvalue().encode()])
        write_file(path, [json.dumps(task).encode()])

    def _train(
        self,
        main: Callable[..., None],
        run: Path,
        minutes: float,
        most: int,
        tell: Tell,
        **given: Any,
    ) -> None:
        """As many steps of one training as fit, the learning rate falling over the last of them.

        How many fit is seen twice on the way, and kept, so that a run which was stopped goes on to
        the same end; told to take twice as long in all, to twice as many.
        """
        path, began, before = run / "plan.json", time.monotonic(), steps_made(run)
        if not path.exists():
            steps = most
            for share in COUNTED_AT:
                passed = (time.monotonic() - began) / 60
                main(out=run, steps=steps, minutes=share * minutes - passed, **given)
                made, passed = steps_made(run), (time.monotonic() - began) / 60
                steps = min(most, made + max(0, round((made - before) * (minutes / passed - 1))))
                plan = {"steps": steps, "minutes": self.minutes}
                write_file(path, [json.dumps(plan).encode()])
                tell(f"{made} of {steps} steps are made")
        plan = json.loads(path.read_text())
        steps = min(most, round(plan["steps"] * self.minutes / plan["minutes"]))
        main(out=run, steps=steps, minutes=minutes - (time.monotonic() - began) / 60, **given)

    def _show(self, tell: Tell) -> None:
        """Paint the samples, and say what there is now."""
        model = checkpoint.load(self.out)
        extent = model.world(self.name).extent
        height = extent.height_px or 2 * PATCH_PX
        width = height if extent.height_px is None else 2 * height
        tell(f"Painting {SEEDS} samples: a minute or so")
        studio = samples.Studio(model, self.work / "samples", workers=os.cpu_count() or 1)
        place = [Region(extent.finest, 0, 0, height, width)]
        shown = [studio.paint(studio.canvas(self.name, seed), place)[0] for seed in range(SEEDS)]
        sheet = self.out / "samples.png"
        columns = SEEDS if extent.height_px is None else 1
        write_file(sheet, [to_png(samples.rows(shown, columns))])
        out, name = shlex.quote(str(self.out)), shlex.quote(self.name)
        size = f"--width {width} --height {height}"
        tell(
            f"World {self.name} is in {self.out}, its samples are {sheet}. To look at it:\n"
            f"  handscroll render --model {out} --world {name} {size} -o picture.png\n"
            f"  scripts/start --model {out}"
        )


def _digest(folder: Path) -> str:
    """SHA-256 of all that is learned from in a folder."""
    found = hashlib.sha256()
    captions = [folder / CAPTIONS] if (folder / CAPTIONS).is_file() else []
    for path in [*files(folder), *captions]:
        content = path.read_bytes() if path.is_file() else b""
        found.update(json.dumps((path.name, hashlib.sha256(content).hexdigest())).encode())
    return found.hexdigest()


def begin_with(base: Checkpoint, kind: WorldKind, tokenizer: Path, decoder: Path) -> None:
    """Leave what a new world starts from: the tokenizer, and the decoder of the world nearest."""
    worlds = base.worlds.values()
    nearest = min(worlds, key=lambda world: (world.extent.kind != kind, world.index))
    state = base.decoder.state_dict()
    state["world.weight"] = state["world.weight"][[nearest.index]]
    config = base.decoder.config
    model = Decoder(replace(config, worlds=1, guided=(config.guided[nearest.index],)))
    model.load_state_dict(state)
    for folder in (tokenizer, decoder):
        folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer.save(base.tokenizer, tokenizer)
    train_decoder.save(model, decoder)
