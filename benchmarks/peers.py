"""The peers: published token-by-token painters of the decoder's layers x width, on random weights.

    taming     the sliding-window loop by which VQGAN + transformer ("Taming Transformers", arXiv
               2012.09841) paints pictures larger than its 16x16 window. The package holds the
               network; the loop was published in a script beside it (sample_conditional.py in
               CompVis/taming-transformers) and is written anew here.
    muse       the confidence-ordered parallel decoding of MaskGIT (arXiv 2202.04200) and Muse
               (arXiv 2301.00704), in muse-maskgit-pytorch.

Each draws one patch of 16x16 tokens, one code of 1024 values to a token, in f32, without guidance
and without pixels. They are optional: see ``requirements-peers.txt``.

Both were written for libraries of their day and import at the top what only training or pictures
need. While they are imported, empty modules stand in for those; nothing that is timed is touched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import seconds
from handscroll.decoder import DecoderConfig

VOCABULARY = 1024
SIDE = 16
TOP_K = 100
TIMED_WINDOWS = SIDE

_TEXT_TOKENS, _TEXT_WIDTH = 16, 768


@dataclass(frozen=True)
class Peer:
    """One rival.

    Attributes:
        name: who, and how.
        draw: draws a patch, or part of one, and returns seconds a patch; None if not installed.
    """

    name: str
    draw: Callable[[], float] | None


def peers(config: DecoderConfig) -> Iterator[Peer]:
    """All rivals, with as many layers, heads and channels as the decoder.

    The published taming loop, which reads a condition beside the picture, comes first.
    """
    makers: dict[str, Callable[[], tuple[nn.Module, Callable[[], float]]]] = {
        f"taming, window loop, {SIDE**2} condition tokens": lambda: taming(config, SIDE**2),
        "taming, window loop, unconditional": lambda: taming(config, 1),
        "muse-maskgit, 18 steps": lambda: muse(config, 18),
        "muse-maskgit, 8 steps": lambda: muse(config, 8),
    }
    for name, make in makers.items():
        try:
            network, draw = make()
        except ImportError:
            yield Peer(name, None)
        else:
            size = sum(weight.numel() for weight in network.parameters()) / 1e6
            yield Peer(f"{name} ({size:.1f}M)", draw)


def taming(config: DecoderConfig, conditions: int) -> tuple[nn.Module, Callable[[], float]]:
    """The network, and its window loop in the middle of a large picture.

    Every window costs the same, so TIMED_WINDOWS, a patch's first row, stand for all.

    Args:
        config: the decoder whose size to match.
        conditions: tokens before the window's own: its square of the condition, or a start token.
    """
    # The one name was moved out of transformers long ago; only another sampler uses it.
    with _standing_in(_module("transformers", top_k_top_p_filtering=None)):
        from taming.modules.transformer.mingpt import GPT  # type: ignore  # optional, untyped

    network = GPT(
        VOCABULARY, conditions + SIDE**2 - 1, config.layers, config.heads, config.width
    ).eval()
    around = (1, 3 * SIDE, 3 * SIDE)
    picture, condition = torch.randint(VOCABULARY, (2, *around))
    start = torch.zeros(1, 1, dtype=torch.long)
    places = [(SIDE + i // SIDE, SIDE + i % SIDE) for i in range(TIMED_WINDOWS)]

    @torch.inference_mode()
    def draw() -> None:
        for row, col in places:
            down, right = (_in_window(at, 3 * SIDE) for at in (row, col))
            window = (
                slice(None),
                slice(row - down, row - down + SIDE),
                slice(col - right, col - right + SIDE),
            )
            before = start if conditions == 1 else condition[window].flatten(1)
            sequence = torch.cat((before, picture[window].flatten(1)), dim=1)
            logits, _ = network(sequence[:, :-1])
            asked = logits[:, -(SIDE**2) :].unflatten(1, (SIDE, SIDE))[:, down, right]
            picture[:, row, col] = _draw_top_k(asked)

    return network, lambda: seconds(draw) * SIDE**2 / TIMED_WINDOWS


def _in_window(at: int, size: int) -> int:
    """Where a token stands in its window: in the middle, but nearer to the picture's borders."""
    return max(min(at, SIDE // 2), at - (size - SIDE))


def _draw_top_k(logits_BV: Tensor) -> Tensor:
    best = logits_BV.topk(TOP_K)
    drawn = torch.multinomial(best.values.softmax(-1), num_samples=1)
    return best.indices.gather(1, drawn)[:, 0]


def muse(config: DecoderConfig, steps: int) -> tuple[nn.Module, Callable[[], float]]:
    """The transformer, and a whole `MaskGit.generate`; its layers attend to the text as well."""
    with _standing_in(
        # The text encoder would be downloaded; random embeddings take its place.
        _module(
            "transformers",
            T5Tokenizer=None,
            T5EncoderModel=None,
            T5Config=None,
            logging=SimpleNamespace(set_verbosity_error=lambda: None),
        ),
        # Pictures, the tokenizer's quantiser and training: the race has none of them.
        _module("torchvision"),
        _module("torchvision.transforms"),
        _module("vector_quantize_pytorch", VectorQuantize=None, LFQ=None),
        _module("muse_maskgit_pytorch.trainers", VQGanVAETrainer=None),
        # Attention in blocks, written in Python: on a CPU the plain one is 1.3x as fast.
        _module("memory_efficient_attention_pytorch"),
        _module("memory_efficient_attention_pytorch.flash_attention", FlashAttentionFunction=None),
        # A progress bar in the timed loop.
        _module("tqdm"),
        _module("tqdm.auto", tqdm=lambda steps, **_: steps),
    ):
        from muse_maskgit_pytorch import (  # type: ignore  # optional, untyped
            MaskGit,
            MaskGitTransformer,
            VQGanVAE,
            t5,
        )

    class NoPixels(VQGanVAE):  # type: ignore[misc]  # a base without types
        """Passes for the tokenizer, whose type is checked, and hands the tokens back."""

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.codebook_size = VOCABULARY

        def copy_for_eval(self) -> NoPixels:
            return self

        def get_encoded_fmap_size(self, image_size: int) -> int:
            return image_size // 16

        def decode_from_ids(self, ids: Any) -> Any:
            return ids

    # Known already, so that it is not looked up on the network.
    t5.T5_CONFIGS[t5.DEFAULT_T5_NAME] = {"config": SimpleNamespace(d_model=_TEXT_WIDTH)}
    transformer = MaskGitTransformer(
        num_tokens=VOCABULARY,
        seq_len=SIDE**2,
        dim=config.width,
        depth=config.layers,
        dim_head=config.width // config.heads,
        heads=config.heads,
        flash=False,
    )
    text = torch.randn(1, _TEXT_TOKENS, _TEXT_WIDTH)
    transformer.encode_text = lambda texts: text
    painter = MaskGit(image_size=16 * SIDE, transformer=transformer, vae=NoPixels())

    def draw() -> None:
        painter.generate(texts=[""], timesteps=steps, cond_scale=1.0)

    return transformer, lambda: seconds(draw)


def _module(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@contextmanager
def _standing_in(*modules: ModuleType) -> Iterator[None]:
    """Let these be found by imports, whether or not the real ones are installed."""
    real = {module.__name__: sys.modules.get(module.__name__) for module in modules}
    sys.modules.update((module.__name__, module) for module in modules)
    try:
        yield
    finally:
        for name, module in real.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
