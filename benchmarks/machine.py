"""The floors: what no program can beat on this machine, and no decoder of this shape.

A step reads every weight of the decoder once, and a patch takes so many multiplications. Whichever
of the two takes longer at the speeds measured here is the floor of a patch.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from handscroll.decoder import Decoder

CORES = os.cpu_count() or 1
GIB = 2**30

_SIDE = 2048
_REPEATS = 3


def description() -> str:
    """The machine in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{CORES} cores, {name}, {torch.backends.cpu.get_cpu_capability()}"


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def read_gib_s(size_bytes: int) -> float:
    """How fast so many bytes are read, over and over, on torch's threads: GiB/s, the best of a few.

    What fits into a cache is read from there, as small weights are.
    """
    numbers = torch.ones(size_bytes // 4)
    passes = -(-GIB // 4 // size_bytes)

    def read() -> None:
        for _ in range(passes):
            numbers.amax()

    return passes * size_bytes / GIB / min(seconds(read) for _ in range(_REPEATS))


def matmul_gflop_s(dtype: torch.dtype) -> float:
    """How fast large matrices are multiplied on torch's threads: GFLOP/s, the best of a few."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    return 2e-9 * _SIDE**3 / min(seconds(lambda: matrix @ matrix) for _ in range(_REPEATS))


def step_bytes(decoder: Decoder) -> int:
    """Bytes of weights that one step reads: all but the tables, of which it reads single rows."""
    parts = (decoder.blocks, decoder.answer, decoder.head_wide, decoder.head_narrow)
    weights = [weight for part in parts for weight in part.parameters()]
    return sum(weight.nbytes for weight in (*weights, decoder.logits))


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call, in matrix products and attention, counted by torch."""

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
        return int(sdpa_flop_count(q, k, v))

    # torch counts attention on a GPU but has no formula for the CPU's.
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={cpu_attention: attention}) as counter:
        call()
    return int(counter.get_total_flops())
