"""Changes to CTranslate2's model.bin, field by field."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

from compat_tests.fuzz.values import NUMBERS, Random

_WIDTHS = (4, 1, 2, 4, 2, 2)  # bytes of float32, int8, int16, int32, float16, bfloat16


@dataclass
class Variable:
    """A record of the file; `count` may disagree with the rest."""

    name: bytes
    shape: tuple[int, ...]
    code: int
    count: int
    data: bytes

    def fit(self) -> None:
        """Let type, shape, count and data agree, where that is no more than a megabyte."""
        size = math.prod(self.shape) * _WIDTHS[self.code % len(_WIDTHS)]
        if size <= 1 << 20:
            self.count = size
            self.data = self.data[:size].ljust(size, b"\1")


@dataclass
class Model:
    """A whole file of version 4 or later."""

    version: int
    specification: bytes
    revision: int
    variables: list[Variable]
    aliases: list[tuple[bytes, bytes]]

    def write(self, excess: int = 0) -> bytes:
        """As its version lays it out; `excess` is added to the number of variables."""
        out = [struct.pack("<I", self.version % 2**32)]
        if self.version >= 2:
            out += [_string(self.specification), struct.pack("<I", self.revision % 2**32)]
        out.append(struct.pack("<I", (len(self.variables) + excess) % 2**32))
        for variable in self.variables:
            sizes = [size % 2**32 for size in variable.shape]
            out += [_string(variable.name), struct.pack("<B", len(sizes) % 256)]
            out.append(struct.pack(f"<{len(sizes)}I", *sizes))
            code, count = variable.code, variable.count
            if self.version < 4:  # a width, and a number of elements
                code = _WIDTHS[code % len(_WIDTHS)]
                count //= code
            out += [struct.pack("<BI", code % 256, count % 2**32), variable.data]
        if self.version >= 3:
            out.append(struct.pack("<I", len(self.aliases)))
            out += [_string(text) for alias in self.aliases for text in alias]
        return b"".join(out)


def _string(text: bytes) -> bytes:
    return struct.pack("<H", (len(text) + 1) % 65536) + text + b"\0"


def read(data: bytes) -> Model:
    """Take a file apart. ValueError or LookupError where it is damaged already."""
    position = 0

    def take(codes: str) -> tuple[int, ...]:
        nonlocal position
        try:
            found = struct.unpack_from("<" + codes, data, position)
        except struct.error as error:
            raise ValueError(str(error)) from error
        position += struct.calcsize("<" + codes)
        return found

    def text() -> bytes:
        nonlocal position
        size = take("H")[0]
        position += size
        return data[position - size : position - 1]

    version = take("I")[0]
    if version < 4:
        raise ValueError("an older layout")
    specification, revision = text(), take("I")[0]
    variables = []
    for _ in range(take("I")[0]):
        name = text()
        shape = take(f"{take('B')[0]}I")
        code, count = take("BI")
        variables.append(Variable(name, shape, code, count, data[position : position + count]))
        position += count
    aliases = [(text(), text()) for _ in range(take("I")[0])]
    return Model(version, specification, revision, variables, aliases)


def change(data: bytes, chance: Random) -> bytes:
    """Change one thing of the file."""
    model = read(data)
    number = chance.choice(NUMBERS)
    kind = chance.randrange(12)
    if kind == 0:
        model.version = chance.choice((1, 2, 3, 4, 5, 6, 7, number))
    elif kind == 1:
        model.revision = number
    elif kind == 2:
        model.specification = chance.choice((b"", b"WhisperSpec", b"TransformerSpec", b"\xff" * 9))
    elif kind == 3:
        return model.write(chance.choice((-1, 1, number)))
    elif kind == 4 and model.aliases:
        index = chance.randrange(len(model.aliases))
        model.aliases[index] = (model.aliases[index][0], chance.choice(model.variables).name)
    else:
        _change_variable(model, chance)
    return model.write()


def _change_variable(model: Model, chance: Random) -> None:
    index = chance.randrange(len(model.variables))
    variable = model.variables[index]
    number = chance.choice(NUMBERS)
    kind = chance.randrange(9)
    if kind == 0:
        del model.variables[index]
    elif kind == 1:
        model.variables.insert(index, replace(chance.choice(model.variables)))
    elif kind == 2:
        other = chance.choice(model.variables).name
        variable.name = chance.choice(
            (other, variable.name + b"_scale", b"", b"\xff", b"a" * 65534)
        )
    elif kind == 3:
        variable.code = chance.choice((0, 1, 2, 3, 4, 5, 6, 255))
    elif kind == 4:
        variable.count = number
    elif kind == 5:
        variable.data = bytes(chance.randrange(256) for _ in range(min(64, variable.count)))
    elif kind == 6:
        variable.shape = chance.choice(
            (variable.shape[::-1], variable.shape[1:], (*variable.shape, 1), (number,), ())
        )
    else:
        place = chance.randrange(max(1, len(variable.shape)))
        variable.shape = (*variable.shape[:place], number, *variable.shape[place + 1 :])
    if kind != 4 and chance.random() < 0.8:
        variable.fit()
