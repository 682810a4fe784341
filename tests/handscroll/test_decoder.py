"""The laws of `handscroll.decoder`: who sees whom, and that the cached steps are the whole."""

import pytest
import torch
from torch import Tensor

from handscroll.checkpoint import Checkpoint
from handscroll.context import Source
from handscroll.course import Kind
from handscroll.decoder import LAST, SIZES, Batch, Decoder, _rotary, _rotate

SIDE, CODES, VOCABULARY = 16, 4, 256
TOKENS = SIDE * SIDE
ENTRIES, CELLS = 96, 20
"""Entries of a context; the last CELLS of them are field cells."""


@pytest.fixture(scope="module")
def decoder(model: Checkpoint) -> Decoder:
    return model.decoder


def some_batch(count: int = 2, seed: int = 0) -> Batch:
    """Random contexts of some worlds and levels, the first with a prompt and a padded end."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(0, int(Source.FIELD), (count, ENTRIES), generator=generator)
    source[:, -CELLS:] = Source.FIELD
    source[0, -3:] = Batch.PAD
    has_text = torch.zeros(count, dtype=torch.bool)
    has_text[0] = True
    return Batch(
        codes_BCK=torch.randint(0, VOCABULARY, (count, ENTRIES, CODES), generator=generator),
        source_BC=source,
        place_BC2=torch.randint(-4, 20, (count, ENTRIES, 2), generator=generator).float(),
        field_BCV=torch.randn(count, ENTRIES, 4, generator=generator),
        text_BW=torch.randn(count, 384, generator=generator) / 384**0.5,  # of length 1
        has_text_B=has_text,
        world_B=torch.arange(count) % 2,
        level_B=torch.arange(count) % 3,
        frame_B=torch.arange(count) % 5,
        kind_B=torch.arange(count) % len(Kind),
    )


def some_tokens(count: int = 2, group: int = 16, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, places and groups of whole patches, in one random order of tokens each."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, VOCABULARY, (count, TOKENS, CODES), generator=generator)
    orders = torch.stack([torch.randperm(TOKENS, generator=generator) for _ in range(count)])
    places = torch.stack((orders // SIDE, orders % SIDE), dim=-1).float()
    groups = (torch.arange(TOKENS) // group).expand(count, -1)
    return codes, places, groups


def whole(decoder: Decoder, batch: Batch, *tokens: Tensor) -> Tensor:
    """Logits of codes (B, T, K, V)."""
    with torch.inference_mode():
        logits: Tensor = decoder(batch, *tokens)[0]
    return logits


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal but for the order of sums in products of other shapes; logits are of size one."""
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def assert_differs(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() > 1e-2


def test_logits_depend_on_context_and_codes(decoder: Decoder) -> None:
    """Without this, the laws below would hold for nothing."""
    logits = whole(decoder, some_batch(), *some_tokens())
    assert logits.shape == (2, TOKENS, CODES, VOCABULARY)
    assert logits.std() > 0.3
    assert_differs(logits[0], logits[1])


@pytest.mark.parametrize("group", [16, 1, 64])
def test_steps_give_the_logits_of_the_whole(decoder: Decoder, group: int) -> None:
    """Prefill and cached steps, told the same tokens, answer as one forward pass does."""
    batch, (codes, places, groups) = some_batch(), some_tokens(group=group)
    count = TOKENS if group > 1 else 40
    found, fates = [], []
    with torch.inference_mode():
        expected, expected_fates = decoder(batch, codes, places, groups)
        cache = decoder.prefill(batch, TOKENS + group)
        condition = decoder.condition(batch)
        last = slice(0, 0)
        for start in range(0, count, group):
            now = slice(start, start + group)
            answer = decoder.step(cache, condition, codes[:, last], places[:, last], places[:, now])
            found.append(decoder.answer_logits(answer, codes[:, now]))
            fates.append(decoder.fate_logits(answer))
            last = now
        assert cache.used == 2 + ENTRIES + count - group
    assert_close(torch.cat(found, dim=1), expected[:, :count])
    assert expected_fates.shape == (2, TOKENS, 2)
    assert_close(torch.cat(fates, dim=1), expected_fates[:, :count])
    assert_differs(expected_fates[0], expected_fates[1])


def test_codes_one_after_another_give_the_logits_of_all(decoder: Decoder) -> None:
    """The head's loop over a token's codes, and its one pass of training."""
    generator = torch.Generator().manual_seed(2)
    answer = torch.randn(2, 9, decoder.config.head_width, generator=generator)
    codes = torch.randint(0, VOCABULARY, (2, 9, CODES), generator=generator)
    with torch.inference_mode():
        expected = decoder.answer_logits(answer, codes)
        for code in range(CODES):
            assert_close(decoder.code_logits(answer, code), expected[:, :, code])
            answer = decoder.choose(answer, code, codes[:, :, code])
    other = codes.clone()
    other[:, :, 1] = (other[:, :, 1] + 1) % VOCABULARY
    with torch.inference_mode():
        changed = decoder.answer_logits(torch.zeros_like(answer), other)
        plain = decoder.answer_logits(torch.zeros_like(answer), codes)
    assert torch.equal(changed[:, :, :2], plain[:, :, :2])
    for later in (2, 3):
        assert_differs(changed[:, :, later], plain[:, :, later])


@pytest.mark.parametrize("group", [3, 9, 15])
def test_groups_see_earlier_groups_alone(decoder: Decoder, group: int) -> None:
    """Of its own group a token sees only the codes of itself that were drawn before."""
    batch, (codes, places, groups) = some_batch(), some_tokens()
    here = slice(16 * group, 16 * group + 16)
    other = codes.clone()
    other[:, here] = (other[:, here] + 100) % VOCABULARY
    plain = whole(decoder, batch, codes, places, groups)
    changed = whole(decoder, batch, other, places, groups)
    assert torch.equal(changed[:, : here.start], plain[:, : here.start])
    assert torch.equal(changed[:, here, 0], plain[:, here, 0])
    assert_differs(changed[:, here, 1:], plain[:, here, 1:])
    if group < 15:
        assert_differs(changed[:, here.stop :, 0], plain[:, here.stop :, 0])


def test_queries_of_a_group_see_each_other(decoder: Decoder) -> None:
    """That is how tokens drawn at once can agree who draws what."""
    batch, (codes, places, groups) = some_batch(), some_tokens()
    moved = places.clone()
    moved[:, 31] = places[:, 32]
    moved[:, 32] = places[:, 31]
    plain = whole(decoder, batch, codes, places, groups)
    changed = whole(decoder, batch, codes, moved, groups)
    assert torch.equal(changed[:, :16], plain[:, :16])
    assert_differs(changed[:, 16:31], plain[:, 16:31])


def test_tokens_outside_the_canvas_are_seen_by_nobody(decoder: Decoder) -> None:
    """Whatever their codes and places; and they are missed by nobody who leaves them out."""
    batch, (codes, places, groups) = some_batch(), some_tokens()
    outside = torch.arange(TOKENS) >= 176
    groups = torch.where(outside, LAST, groups)
    plain = whole(decoder, batch, codes, places, groups)
    other_codes, other_places = codes.clone(), places.clone()
    other_codes[:, outside] = (other_codes[:, outside] + 100) % VOCABULARY
    other_places[:, outside] += 3
    changed = whole(decoder, batch, other_codes, other_places, groups)
    assert torch.equal(changed[:, ~outside], plain[:, ~outside])
    cut = whole(decoder, batch, codes[:, :176], places[:, :176], groups[:, :176])
    assert_close(cut, plain[:, ~outside])


def test_tokens_inside_a_group_have_no_order(decoder: Decoder) -> None:
    batch, (codes, places, groups) = some_batch(), some_tokens()
    generator = torch.Generator().manual_seed(4)
    shuffle = torch.cat(
        [start + torch.randperm(16, generator=generator) for start in range(0, TOKENS, 16)]
    )
    plain = whole(decoder, batch, codes, places, groups)
    shuffled = whole(decoder, batch, codes[:, shuffle], places[:, shuffle], groups)
    assert_close(shuffled, plain[:, shuffle])


def rearranged(batch: Batch, at: Tensor) -> Batch:
    return Batch(
        **vars(batch)
        | {
            name: getattr(batch, name)[:, at]
            for name in ("codes_BCK", "source_BC", "place_BC2", "field_BCV")
        }
    )


def test_context_has_no_order(decoder: Decoder) -> None:
    batch, tokens = some_batch(), some_tokens()
    shuffled = rearranged(batch, torch.arange(ENTRIES).flip(0))
    assert_close(whole(decoder, shuffled, *tokens), whole(decoder, batch, *tokens))


def test_padding_changes_nothing(decoder: Decoder) -> None:
    """Neither how much there is, nor what happens to stand in it."""
    batch, tokens = some_batch(), some_tokens()
    longer = rearranged(batch, torch.cat((torch.arange(ENTRIES), torch.arange(32))))
    longer.source_BC[:, ENTRIES:] = Batch.PAD
    assert_close(whole(decoder, longer, *tokens), whole(decoder, batch, *tokens))
    with torch.inference_mode():
        places = tokens[1][:, :16]
        found = []
        for one in (batch, longer):
            cache = decoder.prefill(one, 16)
            none = tokens[0][:, :0]
            found.append(decoder.step(cache, decoder.condition(one), none, places[:, :0], places))
    assert_close(found[1], found[0])


def test_patches_of_a_batch_do_not_see_each_other(decoder: Decoder) -> None:
    batch, (codes, places, groups) = some_batch(3), some_tokens(3)
    together = whole(decoder, batch, codes, places, groups)
    for row in range(3):
        one = Batch(**{name: value[row : row + 1] for name, value in vars(batch).items()})
        parts = (codes[row : row + 1], places[row : row + 1], groups[row : row + 1])
        assert_close(whole(decoder, one, *parts), together[row : row + 1])


@pytest.mark.parametrize(
    ("part", "at", "step", "end"),
    [
        ("codes_BCK", 0, 1, VOCABULARY),
        ("field_BCV", -5, 3, 1000),
        ("source_BC", 0, 1, 3),
        ("place_BC2", 0, 4, 1000),
        ("world_B", None, 1, 2),
        ("level_B", None, 1, 7),
        ("frame_B", None, 1, 5),
        ("kind_B", None, 1, len(Kind)),
    ],
)
def test_every_part_of_a_context_counts(
    decoder: Decoder, part: str, at: int | None, step: int, end: int
) -> None:
    """Changed in one entry, or for the patch, it changes what is drawn."""
    batch, other, tokens = some_batch(), some_batch(), some_tokens()
    values: Tensor = getattr(other, part)
    (values if at is None else values[:, at]).add_(step).remainder_(end)
    found, plain = whole(decoder, other, *tokens), whole(decoder, batch, *tokens)
    for row in range(2):
        assert (found[row] - plain[row]).abs().max() > 1e-3


def test_entries_count_only_by_what_they_are(decoder: Decoder) -> None:
    """A token has no field values and a field cell no codes, whatever stands in their places."""
    batch, tokens = some_batch(), some_tokens()
    other = some_batch()
    other.field_BCV[:, :-CELLS] = 9
    other.codes_BCK[:, -CELLS:] = 9
    found, plain = whole(decoder, other, *tokens), whole(decoder, batch, *tokens)
    assert torch.equal(found, plain)


def test_prompt_counts_only_where_there_is_one(decoder: Decoder) -> None:
    batch, tokens = some_batch(), some_tokens()
    other = some_batch()
    other.text_BW += 1
    found, plain = whole(decoder, other, *tokens), whole(decoder, batch, *tokens)
    assert torch.equal(found[1], plain[1])
    assert_differs(found[0], plain[0])


def test_places_count_only_relative_to_each_other() -> None:
    """Rotary embedding: moving all together changes no attention; see `_rotary`."""
    generator = torch.Generator().manual_seed(3)
    place = torch.randint(-4, 20, (1, 30, 2), generator=generator).float()
    q, k = torch.randn(2, 1, 2, 30, 32, generator=generator).unbind()
    scores = []
    for moved in (place, place + torch.tensor([50.0, -30.0])):
        rotary = _rotary(moved, 32)
        scores.append(_rotate(q, rotary) @ _rotate(k, rotary).transpose(-1, -2))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)
    swapped = _rotary(place.flip(-1), 32)
    assert_differs(_rotate(q, swapped) @ _rotate(k, swapped).transpose(-1, -2), scores[0])


@pytest.mark.parametrize("name", SIZES)
def test_named_sizes_can_be_built(name: str) -> None:
    """Heads of an even number of pairs: half for rows, half for columns."""
    config = SIZES[name]
    assert config.width % config.heads == 0 and config.width // config.heads % 4 == 0
    with torch.device("meta"):
        count = sum(one.numel() for one in Decoder(config).parameters())
    layers = 12 * config.layers * config.width**2
    assert layers < count < layers + 4e6


def test_empty_context_equals_one_of_padding_alone(decoder: Decoder) -> None:
    """A patch of level 0 without a field sees nothing but its world; that crashed once."""
    batch = some_batch()
    empty = Batch(**{name: value[:, :0] if value.ndim > 1 and name != "text_BW" else value
                     for name, value in vars(batch).items()})  # fmt: skip
    padding = Batch(**{**vars(batch), "source_BC": torch.full_like(batch.source_BC, Batch.PAD)})
    tokens = some_tokens()
    assert_close(whole(decoder, empty, *tokens), whole(decoder, padding, *tokens))
