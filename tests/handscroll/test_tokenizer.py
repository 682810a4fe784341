"""The laws of `handscroll.tokenizer`: nothing looks further than counted, every code is used."""

from itertools import product

import pytest
import torch
from torch import Tensor

from handscroll.checkpoint import Checkpoint
from handscroll.tokenizer import RADIUS_TOK, Quantizer, Tokenizer, TokenizerConfig

F = 16
SIDE_TOK = 25
"""The window of a tile: 17 tokens and RADIUS_TOK around."""


@pytest.fixture(scope="module")
def tokenizer(model: Checkpoint) -> Tokenizer:
    return model.tokenizer


def random_codes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, *shape, 4), generator=generator)


@pytest.fixture(scope="module")
def codes() -> Tensor:
    """A whole scroll's height at level 2, 44 tokens, and a stretch of its width."""
    return random_codes(44, 48)


@pytest.fixture(scope="module")
def picture(tokenizer: Tokenizer, codes: Tensor) -> Tensor:
    """The same in one big decode."""
    pixels = tokenizer.decode(codes)
    assert pixels.shape == (1, 44 * F, 48 * F, 3)
    assert pixels.std() > 0.05 and (pixels.abs() < 1).float().mean() > 0.9
    return pixels


def crop(x: Tensor, row: int, col: int, height: int, width: int, scale: int = 1) -> Tensor:
    return x[:, row * scale : (row + height) * scale, col * scale : (col + width) * scale]


def inner(x: Tensor, margin: int, scale: int = 1) -> Tensor:
    return x[:, margin * scale : -margin * scale, margin * scale : -margin * scale]


# Convolutions and products of other shapes might round differently; so far none did, on any
# machine tried, and "bit-equal" below means just that. Should a library change, equal windows
# must still give equal bytes: that much the purity of tiles needs, and its test stands alone.


@pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 7), (10, 20), (19, 23), (19, 0)])
def test_decode_window_equals_its_crop_of_a_big_decode(
    tokenizer: Tokenizer, codes: Tensor, picture: Tensor, row: int, col: int
) -> None:
    """Bit by bit, inside a margin of RADIUS_TOK tokens."""
    window = tokenizer.decode(crop(codes, row, col, SIDE_TOK, SIDE_TOK))
    expected = crop(picture, row, col, SIDE_TOK, SIDE_TOK, F)
    assert torch.equal(inner(window, RADIUS_TOK, F), inner(expected, RADIUS_TOK, F))
    # One token less would not do.
    assert not torch.equal(inner(window, RADIUS_TOK - 1, F), inner(expected, RADIUS_TOK - 1, F))


@pytest.mark.parametrize("top", [-RADIUS_TOK, -1, 44 - 21, 44 - 17, 44 - 12])
def test_decode_window_over_a_scrolls_edge_equals_its_crop(
    tokenizer: Tokenizer, codes: Tensor, picture: Tensor, top: int
) -> None:
    """With the tokens outside masked, whatever their codes, the edge is an array's edge."""
    left = 10
    window = random_codes(SIDE_TOK, SIDE_TOK, seed=1)
    inside = torch.zeros(1, SIDE_TOK, SIDE_TOK, dtype=torch.bool)
    first, end = max(0, -top), min(SIDE_TOK, 44 - top)
    inside[:, first:end] = True
    window[:, first:end] = crop(codes, top + first, left, end - first, SIDE_TOK)
    pixels = tokenizer.decode(window, inside)

    shown = range(max(first, RADIUS_TOK), min(end, SIDE_TOK - RADIUS_TOK))
    width = SIDE_TOK - 2 * RADIUS_TOK
    found = crop(pixels, shown[0], RADIUS_TOK, len(shown), width, F)
    expected = crop(picture, top + shown[0], left + RADIUS_TOK, len(shown), width, F)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("rows", "cols"),
    [
        (slice(64, 320), slice(70, 326)),
        (slice(0, 5), slice(395, 400)),
        (slice(15, 17), slice(0, 400)),
        (slice(0, 400), slice(200, 201)),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_decode_crop_equals_the_crop_of_the_whole(
    tokenizer: Tokenizer, rows: slice, cols: slice, masked: bool
) -> None:
    window = random_codes(SIDE_TOK, SIDE_TOK)
    inside = None
    if masked:
        inside = torch.ones(1, SIDE_TOK, SIDE_TOK, dtype=torch.bool)
        inside[:, :7], inside[:, :, 20:] = False, False
    part = tokenizer.decode(window, inside, (rows, cols))
    whole = tokenizer.decode(window, inside)[:, rows, cols]
    # A crop of a few pixels may be multiplied by another kernel, which rounds otherwise.
    assert torch.allclose(part, whole, rtol=0, atol=1e-5)
    if part.numel() > 10**5:
        assert torch.equal(part, whole)


def test_decode_of_equal_windows_is_equal(tokenizer: Tokenizer) -> None:
    """One shape, one result; alone or beside others."""
    window = random_codes(SIDE_TOK, SIDE_TOK)
    inside = torch.ones(1, SIDE_TOK, SIDE_TOK, dtype=torch.bool)
    once, again = tokenizer.decode(window, inside), tokenizer.decode(window.clone(), inside)
    assert torch.equal(once, again)
    both = tokenizer.decode(
        torch.cat((random_codes(SIDE_TOK, SIDE_TOK, seed=1), window)), inside.expand(2, -1, -1)
    )
    assert torch.equal(both[1:], once)
    assert not torch.equal(both[:1], once)


def test_decode_ignores_codes_outside(tokenizer: Tokenizer) -> None:
    inside = torch.ones(1, 12, 12, dtype=torch.bool)
    inside[:, :3] = False
    inside[:, :, 10:] = False
    one, other = random_codes(12, 12), random_codes(12, 12, seed=1)
    other[inside] = one[inside]
    shown = inside.repeat_interleave(F, 1).repeat_interleave(F, 2)
    found = [tokenizer.decode(codes, inside)[shown] for codes in (one, other)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(tokenizer.decode(one)[shown], tokenizer.decode(other)[shown])


def test_decode_mask_of_the_whole_is_no_mask(tokenizer: Tokenizer) -> None:
    codes = random_codes(9, 11)
    inside = torch.ones(1, 9, 11, dtype=torch.bool)
    assert torch.equal(tokenizer.decode(codes, inside), tokenizer.decode(codes))


def test_decode_reaches_as_far_as_its_radius(tokenizer: Tokenizer) -> None:
    """Pixels of token 10 change with tokens up to RADIUS_TOK away and no further."""
    codes = random_codes(21, 21)
    plain = crop(tokenizer.decode(codes), 10, 10, 1, 1, F)
    for distance, across in product((RADIUS_TOK, RADIUS_TOK + 1), (False, True)):
        reached = False
        for sign in (-1, 1):
            changed = codes.clone()
            at = (10, 10 + sign * distance) if across else (10 + sign * distance, 10)
            changed[0, *at] = (changed[0, *at] + 128) % 256
            reached |= not torch.equal(crop(tokenizer.decode(changed), 10, 10, 1, 1, F), plain)
        assert reached == (distance == RADIUS_TOK)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (5, 9), (11, 11)])
def test_encode_crop_equals_its_part_of_a_big_encode(
    tokenizer: Tokenizer, row: int, col: int
) -> None:
    """Scalars bit by bit, and so codes, inside a margin of 8 tokens; RADIUS_TOK would do."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(1, 36 * F, 36 * F, 3, generator=generator) * 2 - 1
    part = crop(pixels, row, col, 25, 25, F)
    with torch.inference_mode():
        big, small = tokenizer._scalars(pixels), tokenizer._scalars(part)
    for margin in (8, RADIUS_TOK):
        expected = inner(crop(big, row, col, 25, 25), margin)
        assert torch.equal(inner(small, margin), expected)
    assert not torch.equal(inner(small, 2), inner(crop(big, row, col, 25, 25), 2))
    codes = crop(tokenizer.encode(pixels), row, col, 25, 25)
    assert torch.equal(inner(tokenizer.encode(part), 8), inner(codes, 8))
    assert len(codes.unique()) > 100


def test_encode_gives_one_token_for_its_square_of_pixels(tokenizer: Tokenizer) -> None:
    codes = tokenizer.encode(torch.zeros(2, 5 * F, 3 * F, 3))
    assert codes.shape == (2, 5, 3, 4)
    assert codes.min() >= 0 and codes.max() < 256


# Quantizer


CONFIGS = [
    TokenizerConfig(),
    TokenizerConfig(codes=1, levels=(7, 6, 6)),
    TokenizerConfig(codes=2, levels=(8, 8, 4)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_quantizer_every_code_has_its_own_values(config: TokenizerConfig) -> None:
    quantizer = Quantizer(config)
    codes = torch.arange(config.vocabulary)[None, None, :, None].expand(-1, -1, -1, config.codes)
    values = quantizer.values(codes).unflatten(-1, (config.codes, len(config.levels)))
    for number in range(config.codes):
        assert len(values[0, 0, :, number].unique(dim=0)) == config.vocabulary
    assert values.abs().max() < 1
    for scalar, levels in enumerate(config.levels):
        expected = (2 * torch.arange(levels) + 1) / levels - 1
        torch.testing.assert_close(values[..., scalar].unique(), expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_quantizer_values_go_back_to_their_codes(config: TokenizerConfig) -> None:
    """The nearest step of each scalar is the one the value came from."""
    quantizer = Quantizer(config)
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, config.vocabulary, (2, 6, 7, config.codes), generator=generator)
    values = quantizer.values(codes).unflatten(-1, (config.codes, -1))
    again = torch.zeros_like(codes)
    stride = 1
    for scalar, levels in enumerate(config.levels):
        grid = (2 * torch.arange(levels) + 1) / levels - 1
        step = (values[..., scalar, None] - grid).abs().argmin(-1)
        again += stride * step
        stride *= levels
    assert torch.equal(again, codes)


@pytest.mark.parametrize("config", CONFIGS)
def test_quantizer_says_the_codes_of_the_values_it_gives(config: TokenizerConfig) -> None:
    """And the values are the nearest to what came in, on the curve that spreads it evenly."""
    quantizer = Quantizer(config)
    width = config.codes * len(config.levels)
    z = torch.randn(1, 20, 20, width, generator=torch.Generator().manual_seed(6))
    hard, codes = quantizer(z)
    torch.testing.assert_close(quantizer.values(codes), hard)
    unit = z / z.square().mean(-1, keepdim=True).sqrt()
    soft = torch.erf(unit / 2**0.5)
    gap = (soft - hard).abs().unflatten(-1, (config.codes, -1))
    assert (gap <= 1 / torch.tensor(config.levels) + 1e-4).all()


def test_quantizer_uses_its_codes_evenly() -> None:
    """For normal scalars: each level within 5 % of its share, no code of 256 unused.

    Brought to unit size together, sixteen scalars are not quite normal, hence the 5 %.
    """
    quantizer = Quantizer(TokenizerConfig())
    z = torch.randn(1, 100, 100, 16, generator=torch.Generator().manual_seed(4))
    _, codes = quantizer(z * 7)
    steps = codes[..., None] // quantizer.stride_D % quantizer.steps_D
    share = steps.flatten().bincount() / steps.numel()
    assert (share - 0.25).abs().max() < 0.05 * 0.25
    used = codes.flatten().bincount(minlength=256)
    expected = codes.numel() / 256
    assert used.min() > 0.5 * expected and used.max() < 1.6 * expected


def test_quantizer_does_not_mind_the_scale() -> None:
    quantizer = Quantizer(TokenizerConfig())
    z = torch.randn(1, 10, 10, 16, generator=torch.Generator().manual_seed(5))
    assert torch.equal(quantizer(z)[1], quantizer(z * 64)[1])


def test_quantizer_passes_the_gradient_of_the_unquantised() -> None:
    quantizer = Quantizer(TokenizerConfig())
    z, weights = torch.randn(2, 1, 4, 4, 16, generator=torch.Generator().manual_seed(7))
    z.requires_grad_()
    (found,) = torch.autograd.grad((quantizer(z)[0] * weights).sum(), z)
    unit = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-6)
    (expected,) = torch.autograd.grad((torch.erf(unit / 2**0.5) * weights).sum(), z)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_forward_reconstructs_what_encode_and_decode_do(tokenizer: Tokenizer) -> None:
    pixels = torch.rand(1, 4 * F, 6 * F, 3, generator=torch.Generator().manual_seed(8)) * 2 - 1
    with torch.inference_mode():
        found, codes = tokenizer(pixels)
    assert torch.equal(codes, tokenizer.encode(pixels))
    torch.testing.assert_close(found.clamp(-1, 1), tokenizer.decode(codes))
