"""The pickle inside a .pt checkpoint, read as data.

Python's own unpickler calls what a file names and sets what a file says. This reader knows only
the opcodes and names that torch.save writes for a dictionary of tensors, the subset that
torch.load(weights_only=True) reads, and has no way to set an attribute.
"""

from __future__ import annotations

import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .files import MOST_DIMENSIONS

_MOST_OPCODES = 400_000  # large-v3 needs 50,000
_STORAGES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype("<u2"),
}
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"

StorageOf: TypeAlias = Callable[[str, np.dtype[Any], int], np.ndarray]
"""The numbers of a storage ``[count]``, by its key, type and count. ValueError if it has fewer."""


@dataclass(frozen=True)
class _Global:
    """A class or function that the pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Numbers that tensors are views of."""

    values: np.ndarray


def read_pickle(pickled: bytes, storage_of: StorageOf) -> Any:
    """The value of a checkpoint's pickle, with read-only arrays for tensors.

    Dictionaries have strings as keys. ValueError, or LookupError where the pickle is damaged.
    """
    machine = _Machine(storage_of)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if count == _MOST_OPCODES:
            raise ValueError(f"its pickle has more than {_MOST_OPCODES} opcodes")
        if opcode.name == "STOP":
            break
        machine.execute(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, storage_of: StorageOf) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}  # by any index: a large one takes no room
        self._storage_of = storage_of

    def execute(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._marked())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._marked())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_named(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_called(function, arguments))
            case "BUILD":
                # The `_metadata` of a state dict, which loading does not need.
                del stack[-1]
                if type(stack[-1]) is not OrderedDict:
                    raise ValueError("it sets the state of what is no dictionary")
            case _:
                raise ValueError(f"it has the opcode {name}, which torch.save does not write")

    def _marked(self) -> list[Any]:
        """What is on the stack from the last mark on, taken off."""
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not isinstance(self.stack[-1], dict) or not set(map(type, keys)) <= {str}:
            raise ValueError("it has a dictionary whose keys are no strings")
        self.stack[-1].update(zip(keys, values, strict=True))

    def _storage(self, reference: Any) -> _Storage:
        """What torch.save writes in place of a storage: its kind, type, key, device and count."""
        if type(reference) is not tuple or [*map(type, reference)] != [str, _Global, str, str, int]:
            raise ValueError("it has a reference that is not to a storage")
        kind, named, key, _, count = reference
        if kind != "storage" or named.name not in _STORAGES:
            raise ValueError("it has a reference that is not to a storage")
        return _Storage(self._storage_of(key, _STORAGES[named.name], count))


def _named(name: str) -> _Global:
    if name not in (_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGES):
        raise ValueError(
            f"it names {name[:100].replace(' ', '.')}, which no checkpoint of openai-whisper needs"
        )
    return _Global(name)


def _called(function: Any, arguments: Any) -> Any:
    if type(function) is not _Global or type(arguments) is not tuple:
        raise ValueError("it calls what is no function")
    if function.name == _ORDERED_DICT and not arguments:
        return OrderedDict()
    if function.name == _TENSOR and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    if function.name == _PARAMETER and arguments and type(arguments[0]) is np.ndarray:
        return arguments[0]
    raise ValueError(f"it calls {function.name.replace(' ', '.')} with other arguments than torch")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """A view of a storage, as torch._utils._rebuild_tensor_v2 makes it. ValueError if outside."""
    if (
        type(storage) is not _Storage
        or not type(shape) is type(strides) is tuple
        or not len(shape) == len(strides) <= MOST_DIMENSIONS
        or not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    ):
        raise ValueError("a tensor is ill described")
    values = storage.values
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if not 0 < math.prod(shape) <= values.size or last >= values.size:
        raise ValueError("a tensor is empty or goes past its storage")
    return np.lib.stride_tricks.as_strided(
        values[offset:], shape, [step * values.itemsize for step in strides], writeable=False
    )
