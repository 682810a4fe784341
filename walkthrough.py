"""The whole algorithm, top to bottom, in about a minute on a CPU: ``python walkthrough.py``.

We want one tile of an endless map, 100,000 tiles from anywhere, and we will paint it from nothing,
with the model that ships and plain loops: no worker, no cache, no pool but a dict. At the end we
check that the library's fast path gives the same bytes.
"""

import numpy as np
import torch
from PIL import Image

from handscroll import checkpoint
from handscroll.canvas import Canvas
from handscroll.context import Codes, gather
from handscroll.detail import STEP_PX, Detail
from handscroll.field import ProceduralField
from handscroll.geometry import PATCH_PX, Patch, Tile, window_patches
from handscroll.order import Lattice
from handscroll.paint import Painter
from handscroll.sample import choose, collate, guided, token_order, without_field
from handscroll.seeds import gumbels, patch_key
from handscroll.tokenizer import RADIUS_TOK, to_rgb
from handscroll.view import View

torch.set_num_threads(1)

# A canvas is a model, a world, a seed and little more; the same spec is the same picture for ever.

model = checkpoint.load()
world = model.world("planet")
sampling = model.sampling
canvas = Canvas(model.digest, "planet", 7, world.extent, sampling=sampling)
print(f"canvas {canvas.id[:16]}: {canvas.canonical().decode()[:120]}...")

# Each patch of level 1 refines a quarter of a patch of level 0, the coarsest.
# A tile lies across four patches, which leaves its decoder enough tokens around it.

tile = Tile(level=1, row=100_000, col=-100_000)
side = model.decoder.config.side
four = window_patches(tile, canvas.extent, PATCH_PX // side, RADIUS_TOK)
print(f"tile {tile.row}, {tile.col} needs", ", ".join(f"({p.row}, {p.col})" for p in four))

# The Arbitrary Direction Controller: what do these four stand on? On 9 patches a level, wherever
# we look: seeds that see nobody, bridges between two seeds, fills among eight neighbours. A patch
# also sees the parents of all these, on the level above.

order = Lattice(canvas.extent)
waves = order.waves(four)
print(f"they stand on {sum(map(len, waves))} patches, drawn in {len(waves)} waves:")
for wave in waves:
    phase = ("seed", "bridge", "fill")[order.rank(wave[0])[0]]
    print(f"  level {wave[0].level}: {len(wave)} {phase}s")

# Level 0 has no parent. It sees a procedural field instead, a pure function of seed and place; and
# is asked twice, with the field and without, to move away from what it would draw without.

field = ProceduralField(canvas.seed, canvas.extent, world.palette, PATCH_PX // side)

# The outer loop. The pool is a dict; `gather` is the Nearby Context Pool's question: which tokens,
# where, from which source, may this patch see?

pool: dict[Patch, Codes] = {}
for patch in (patch for wave in waves for patch in wave):
    context = gather(patch, order, side, pool.__getitem__, field)
    asked = [context] if patch.level > 0 else [context, without_field(context)]
    ways, length = len(asked), context.padded_length
    batch = collate(asked, [world.index] * ways, [None] * ways, model.decoder.config, length)

    # The inner loop: sixteen tokens a step, far apart first. One forward pass answers every
    # question of the step; what is drawn becomes context for the next. (The library keeps the
    # context's keys and values instead of computing them again.) The noise of every token has a
    # name, so the draw does not depend on when or where it happens.

    places = token_order(context.inside_ss, sampling.token_order)
    step = torch.arange(len(places)) // sampling.group
    rows_cols = torch.from_numpy(np.stack(np.divmod(places, side), axis=-1)).float()
    noise = torch.from_numpy(gumbels(patch_key(canvas.seed, patch), (side * side, 4, 256))[places])
    codes = torch.zeros(len(places), 4, dtype=torch.long)
    for number in range(int(step[-1]) + 1):
        now = step == number
        with torch.inference_mode():
            question = (one.expand(ways, *one.shape) for one in (codes, rows_cols, step))
            answer = model.decoder.answers(batch, *question)[:, now]
            for code in range(4):  # a token's four codes, each given those before it
                logits = model.decoder.code_logits(answer, code)
                logits = guided(logits, sampling.guidance) if ways == 2 else logits
                codes[now, code] = choose(logits, noise[None, now, code], sampling)[0]
                answer = model.decoder.choose(answer, code, codes[now, code].expand(ways, -1))
    drawn = np.zeros((side * side, 4), np.uint8)
    drawn[places] = codes.numpy()
    pool[patch] = drawn.reshape(side, side, 4)
    print(f"  drew {tuple(patch)}, which saw {len(context.codes_NK)} tokens")

# Tokens to pixels, and a few pixels around the tile, with four tokens of margin on every side, so
# that no border shows.

view = View(tile, canvas.extent, side, RADIUS_TOK, margin_px=STEP_PX)
(window,) = view.tokens(pool.__getitem__)
pixels = model.tokenizer.decode(
    torch.from_numpy(window.codes)[None], torch.from_numpy(window.inside)[None], window.crop
)

# What the tokenizer loses, grain and ripples, is found again by example: each block of 32 pixels is
# given what was lost of a piece of a real picture that looks like it.

painted = view.painted([to_rgb(pixels[0]).numpy()], Detail(world.pieces[tile.level]))
picture = view.cut(painted.shown())
Image.fromarray(picture).save("walkthrough.png")

# And the library, which batches, caches and forgets as it goes, agrees.

with Painter(model, canvas) as painter:
    same = np.array_equal(painter.tile(tile), picture)
print(f"walkthrough.png is painted; the library paints {'the same' if same else 'ANOTHER'} picture")
