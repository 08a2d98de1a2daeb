"""A Whisper decoder in plain numpy: the searches can be compared with the reference by it alone.

It satisfies `whisper_max_backend.engine.search.protocol` and is written for reading, not for speed:
caches are copied when rows are reordered.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whisper_max_backend.engine.search.protocol import Candidates, Sampling, StepRequest
from whisper_max_backend.engine.search.rules import Constraints, FixedRules

Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

_LOWEST = np.finfo(np.float32).min
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # CTranslate2's type ids
_erf = np.vectorize(math.erf, otypes=[np.float32])


def read_variables(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All variables and aliases of a CTranslate2 model.bin (binary version 6)."""
    data = path.read_bytes()
    position = 0

    def number(form: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from(f"<{form}", data, position)
        position += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal position
        length = number("H")
        position += length
        return data[position - length : position - 1].decode()

    number("I"), text(), number("I")  # format version, name and revision of the specification
    variables: dict[str, npt.NDArray[Any]] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(_DTYPES[number("B")])
        size = number("I")
        values = np.frombuffer(data, dtype, size // dtype.itemsize, position)
        variables[name] = values.reshape(shape)
        position += size
    for _ in range(number("I")):
        alias, name = text(), text()
        variables[alias] = variables[name]
    return variables


def log_softmax(x: Array) -> Array:
    """Log-softmax over the last axis, in float32."""
    top = x.max(axis=-1, keepdims=True)
    # Subtracted at once, as in the reference: where all is banned, this leaves 0.
    result: Array = x - (top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))
    return result


@dataclass
class NumpyState:
    """Caches of rows: keys and values of the text per layer, [rows, time, size]."""

    cross: list[tuple[Array, Array]]  # per layer [items, frames, size]
    keys: list[Array]
    values: list[Array]
    items: Int32Array  # [rows]: whose audio a row attends to
    rules: FixedRules
    last_logits: Array  # [rows, time, n_vocab] of the last prefill

    def take_ahead(self, tokens: Sequence[int]) -> None:
        """Nothing: every step is made when it is asked for."""

    def reorder(self, rows: Int32Array) -> None:
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.items = self.items[rows]


class NumpyDecoder:
    """The decoder of a float32 CTranslate2 model directory."""

    steps_ahead = 1

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], eot: int, first: int):
        """`eot` is the id of <|endoftext|>, `first` that of <|0.00|>."""
        self.weights = weights
        self.n_vocab = weights["decoder/embeddings/weight"].shape[0]
        self.heads = int(weights["decoder/num_heads"])
        self.layers = sum(name.endswith("/ffn/layer_norm/gamma") for name in weights) - sum(
            name.startswith("encoder/") and name.endswith("/ffn/layer_norm/gamma")
            for name in weights
        )
        self.eot = eot
        self.first = first

    def start(self, encoded: Array, rules: FixedRules) -> NumpyState:
        """State for `encoded` [items, frames, size], one row an item."""
        cross = []
        for layer in range(self.layers):
            fused = self._linear(f"decoder/layer_{layer}/attention/linear_1", encoded)
            keys, values = np.split(fused, 2, axis=-1)
            cross.append((keys, values))
        items, _, size = encoded.shape
        return NumpyState(
            cross=cross,
            keys=[np.zeros((items, 0, size), np.float32) for _ in cross],
            values=[np.zeros((items, 0, size), np.float32) for _ in cross],
            items=np.arange(items, dtype=np.int32),
            rules=rules,
            last_logits=np.zeros((0, 0, self.n_vocab), np.float32),
        )

    def finish(self, state: NumpyState) -> None:
        """Its arrays are its own."""

    def prefill(self, state: NumpyState, tokens: Int32Array) -> None:
        steps = [self._forward(state, tokens[:, i]) for i in range(tokens.shape[1])]
        state.last_logits = np.stack(steps, axis=1)

    def prefill_probability(self, state: NumpyState, position: int, token: int) -> Array:
        result: Array = np.exp(log_softmax(state.last_logits[:, position]))[:, token]
        return result

    def step(self, state: NumpyState, request: StepRequest) -> Candidates:
        logits = self._forward(state, request.tokens)
        beams, watch = request.beams, request.watch
        watched = np.exp(log_softmax(logits))[:, watch] if watch >= 0 else None
        self.constrain(logits, request.constraints, state.rules)
        with np.errstate(over="ignore"):  # a banned token in a losing beam falls to -inf
            totals = log_softmax(logits) + request.scores[:, None]
        totals = totals.reshape(-1, beams * self.n_vocab)
        picked = pick(totals, request.candidates, request.sampling)
        return Candidates(
            tokens=(picked % self.n_vocab).astype(np.int32),
            origins=(picked // self.n_vocab).astype(np.int32),
            scores=np.take_along_axis(totals, picked, axis=1),
            logits=logits if request.return_logits else None,
            watched=watched,
        )

    def constrain(self, logits: Array, constraints: Constraints, rules: FixedRules) -> None:
        """Apply the rules to `logits` [rows, n_vocab] in place."""
        penalty = np.float32(rules.repetition_penalty)
        for row, line in enumerate(logits):
            seen = constraints.penalized[row]
            seen = seen[seen >= 0]
            line[seen] = np.where(line[seen] < 0, line[seen] * penalty, line[seen] / penalty)
            line[rules.suppressed] = _LOWEST
            for low, high in constraints.ranges[row]:
                line[low:high] = _LOWEST
            banned = constraints.banned[row]
            line[banned[banned >= 0]] = _LOWEST
            if constraints.check_timestamps[row]:
                text, times = np.split(log_softmax(line), [self.first])
                top = times.max()
                if top + np.log(np.exp(times - top).sum()) > text.max():
                    line[: self.first] = _LOWEST

    def _forward(self, state: NumpyState, tokens: Int32Array) -> Array:
        """Append a token to every row; logits [rows, n_vocab]."""
        weights = self.weights
        position = state.keys[0].shape[1]
        x = weights["decoder/embeddings/weight"][tokens]
        x = x + weights["decoder/position_encodings/encodings"][position]
        for layer in range(self.layers):
            scope = f"decoder/layer_{layer}"
            normed = self._norm(f"{scope}/self_attention/layer_norm", x)
            fused = self._linear(f"{scope}/self_attention/linear_0", normed)
            query, key, value = np.split(fused, 3, axis=-1)
            state.keys[layer] = np.concatenate([state.keys[layer], key[:, None]], axis=1)
            state.values[layer] = np.concatenate([state.values[layer], value[:, None]], axis=1)
            mixed = self._attend(query, state.keys[layer], state.values[layer])
            x = x + self._linear(f"{scope}/self_attention/linear_1", mixed)

            normed = self._norm(f"{scope}/attention/layer_norm", x)
            query = self._linear(f"{scope}/attention/linear_0", normed)
            keys, values = state.cross[layer]
            mixed = self._attend(query, keys[state.items], values[state.items])
            x = x + self._linear(f"{scope}/attention/linear_2", mixed)

            hidden = self._linear(f"{scope}/ffn/linear_0", self._norm(f"{scope}/ffn/layer_norm", x))
            hidden = hidden * np.float32(0.5) * (1 + _erf(hidden * np.float32(0.5**0.5)))
            x = x + self._linear(f"{scope}/ffn/linear_1", hidden)
        x = self._norm("decoder/layer_norm", x)
        logits: Array = x @ weights["decoder/projection/weight"].T
        return logits

    def _linear(self, name: str, x: Array) -> Array:
        result: Array = x @ self.weights[f"{name}/weight"].T + self.weights[f"{name}/bias"]
        return result

    def _norm(self, name: str, x: Array) -> Array:
        centered = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centered).mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt(variance + np.float32(1e-5))
        result: Array = scaled * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]
        return result

    def _attend(self, query: Array, keys: Array, values: Array) -> Array:
        """Attention of one query a row [rows, size] over [rows, time, size]."""
        rows, size = query.shape
        split = (rows, -1, self.heads, size // self.heads)
        q, k, v = query.reshape(split), keys.reshape(split), values.reshape(split)
        weights = np.exp(log_softmax(np.einsum("rqhd,rthd->rhqt", q, k) / split[-1] ** 0.5))
        mixed: Array = np.einsum("rhqt,rthd->rqhd", weights, v).reshape(rows, size)
        return mixed.astype(np.float32)


def pick(totals: Array, count: int, sampling: Sampling) -> npt.NDArray[np.int64]:
    """Indices [items, count] of the best totals [items, n], or of sampled ones (Gumbel-max)."""
    if sampling.temperature == 0 or sampling.topk == 1:
        return _best(totals, count)
    generator = np.random.default_rng(sampling.seed)
    keys = totals / np.float32(sampling.temperature)
    if sampling.topk:
        beaten = np.argsort(-totals, axis=1, kind="stable")[:, sampling.topk :]
        np.put_along_axis(keys, beaten, -np.inf, axis=1)
    return _best(keys + generator.gumbel(size=totals.shape), count)


def _best(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Indices [items, count] of the largest values [items, n], the first of equal ones first."""
    least = np.partition(values, -count, axis=1)[:, -count]
    found = []
    for line, limit in zip(values, least, strict=True):
        among = np.flatnonzero(line >= limit)
        found.append(among[np.argsort(-line[among], kind="stable")[:count]])
    return np.array(found)
