"""The reference's Silero model in two parts, so that several threads share most of its work.

Only its recurrent layer, a tenth of the work, goes from frame to frame; what is before it judges
each frame by itself. The numbers are those of the whole model.

The model is a file of ONNX, which is a message of Protocol Buffers: fields, some of which are
messages themselves. Two others are made of it.

Source: onnx.proto of ONNX; "Encoding" in the documentation of Protocol Buffers.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_whisper.utils import get_assets_path
from faster_whisper.vad import get_vad_model

_FILE = "silero_vad_v6.onnx"
_INPUT = "input"

BEGINNING = [np.zeros((1, 1, 128), np.float32)] * 2
"""The state before the first frame."""

# Numbers of fields.
_GRAPH = 7
_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_NODE_INPUT, _OPERATOR = 1, 4
_NAME, _TYPE = 1, 2
_TENSOR, _ELEMENT = 1, 1
_FLOAT = 1
# How a field's content is written.
_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 5: 4}

_log = logging.getLogger("whisper_max_backend")


class Silero:
    """The model's sessions. Calls of several threads at once are legal."""

    def __init__(self, encoder: Any, decoder: Any, between: str) -> None:
        """Put the parts together.

        Args:
            encoder: The session of what is before the recurrent layer; None if the model is whole.
            decoder: That of the rest, or of the whole model.
            between: The input of the decoder that takes what `encode` gives.
        """
        self._encoder, self._decoder, self._between = encoder, decoder, between

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """What `decode` needs of frames, float32 ``[frames, samples]``."""
        if self._encoder is None:
            return frames
        encoded: np.ndarray
        (encoded,) = self._encoder.run(None, {_INPUT: frames})
        return encoded

    def decode(
        self, encoded: np.ndarray, state: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The probability of speech in frames, float32 ``[frames, 1]``, and the state after them.

        The state is two arrays, float32 ``[1, 1, 128]``, at first `BEGINNING`.
        """
        inputs = {self._between: encoded, "h": state[0], "c": state[1]}
        probabilities, *after = self._decoder.run(None, inputs)
        return probabilities, after


@functools.cache
def silero() -> Silero:
    """The model, loaded when it is first asked for.

    Raises:
        RuntimeError: onnxruntime is not installed.
    """
    try:
        with open(os.path.join(get_assets_path(), _FILE), "rb") as file:
            encoder, decoder, between = split(file.read())
        return Silero(_session(encoder), _session(decoder), between)
    except Exception as error:  # onnxruntime has a class for each reason
        whole = get_vad_model().session  # which tells if it is not installed
        _log.warning(
            "speech is looked for by one thread: this faster-whisper's Silero model is not the one "
            "that whisper-max-backend can take apart (%s)",
            error,
        )
        return Silero(None, whole, _INPUT)


def _session(model: bytes) -> Any:
    """As the reference opens one: it computes in the thread that asks."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model, providers=["CPUExecutionProvider"], sess_options=options
    )


class _Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Which it is.
        content: Of a text or a message; empty for numbers.
        written: The field as it is in the message.
    """

    number: int
    content: bytes
    written: bytes


def split(model: bytes) -> tuple[bytes, bytes, str]:
    """Two models, cut before the recurrent layer, and the name of what the first gives the second.

    Raises:
        ValueError: It is no model of ONNX, or has not one such layer.
    """
    graph = _texts(_fields(model), _GRAPH)
    fields = [field for part in graph for field in _fields(part)]
    nodes = [field for field in fields if field.number == _NODE]
    inputs = [field for field in fields if field.number == _GRAPH_INPUT]
    outputs = [field for field in fields if field.number == _GRAPH_OUTPUT]
    operators = [_texts(_fields(node.content), _OPERATOR) for node in nodes]
    if operators.count([b"LSTM"]) != 1:
        raise ValueError("it has not one recurrent layer")
    place = operators.index([b"LSTM"])
    name, *_ = _texts(_fields(nodes[place].content), _NODE_INPUT)
    kind = _message(_TENSOR, _message(_ELEMENT, _FLOAT))
    between = _message(_NAME, name) + _message(_TYPE, kind)
    frames = [
        field for field in inputs if _texts(_fields(field.content), _NAME) == [_INPUT.encode()]
    ]
    state = [field for field in inputs if field not in frames]
    others = [field for field in fields if field.number not in (_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT)]

    def part(*kept: _Field, value: int) -> bytes:
        """A model of some nodes, inputs and outputs; the value is an input or an output."""
        written = b"".join(field.written for field in (*kept, *others))
        return b"".join(
            [
                *(field.written for field in _fields(model) if field.number != _GRAPH),
                _message(_GRAPH, written + _message(value, between)),
            ]
        )

    return (
        part(*nodes[:place], *frames, value=_GRAPH_OUTPUT),
        part(*nodes[place:], *state, *outputs, value=_GRAPH_INPUT),
        name.decode(),
    )


def _fields(message: bytes) -> Iterator[_Field]:
    """The fields of a message.

    Raises:
        ValueError: It is none.
    """
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        content = b""
        way = key & 7
        if way == _VARINT:
            _, place = _varint(message, place)
        elif way == _BYTES:
            size, place = _varint(message, place)
            content = message[place : place + size]
            place += size
        elif way in _SIZES:
            place += _SIZES[way]
        else:
            raise ValueError(f"its field {key >> 3} is written in an unknown way")
        if place > len(message):
            raise ValueError("its end is missing")
        yield _Field(key >> 3, content, message[start:place])


def _texts(fields: Iterator[_Field], number: int) -> list[bytes]:
    """The contents of the fields of a number."""
    return [field.content for field in fields if field.number == number]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = shift = 0
    while place < len(message):
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
    raise ValueError("its end is missing")


def _message(number: int, content: bytes | int) -> bytes:
    """A field, as it is written."""
    if isinstance(content, int):
        return _written(number << 3 | _VARINT) + _written(content)
    return _written(number << 3 | _BYTES) + _written(len(content)) + content


def _written(number: int) -> bytes:
    """The same as `_varint` reads."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
