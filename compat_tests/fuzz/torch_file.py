"""Changes to torch.save's files: members of the archive, and opcodes of the pickle in it."""

from __future__ import annotations

import bz2
import functools
import io
import pickletools
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace

from compat_tests.fuzz.values import NUMBERS, Random

_BOMB = 64 << 20
# Fields of the archive's records: offset and struct code.
_FIELDS = {
    b"PK\1\2": ((8, "H"), (10, "H"), (20, "I"), (24, "I"), (28, "H"), (30, "H"), (42, "I")),
    b"PK\3\4": ((6, "H"), (8, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (28, "H")),
    b"PK\5\6": ((8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H")),
}
_GLOBALS = (
    *(b"torch\nFloatStorage\n", b"torch\nHalfStorage\n", b"torch._utils\n_rebuild_tensor_v2\n"),
    *(b"collections\nOrderedDict\n", b"builtins\neval\n", b"os\nsystem\n", b"numpy\nndarray\n"),
    *(b"torch._utils\n_rebuild_parameter\n", b"builtins\nbytearray\n", b"\n\n"),
)
# Opcodes with arguments that are worth having at any place.
_OPCODES = (
    *(b"b", b"R", b"\x81", b"o(", b"(", b"0", b"1", b"2", b"N", b"\x88", b"}", b"]", b")", b"s"),
    *(b"u", b"a", b"e", b"t", b"\x85", b"\x86", b"\x87", b"l", b"d", b"Q", b"\x94", b"\x93", b"."),
    *(b"r" + struct.pack("<I", 2**k) for k in (10, 20, 26, 28, 30)),
    *(b"j" + struct.pack("<I", k) for k in (0, 1, 5, 2**30)),
    *(b"h" + bytes([k]) for k in (0, 1, 2, 3, 8, 255)),
    *(b"q" + bytes([k]) for k in (0, 1, 255)),
    *(b"c" + name for name in _GLOBALS),
    *(b"\x8d" + struct.pack("<Q", size) + b"text" for size in (4, 2**31, 2**62)),
    *(b"\x96" + struct.pack("<Q", size) + b"text" for size in (4, 2**31, 2**62)),
    *(b"\x95" + struct.pack("<Q", size) for size in (0, 4, 2**62)),
    *(b"\x8b" + struct.pack("<i", 4) + b"\xff\xff\xff\x7f", b"L" + b"9" * 5000 + b"L\n"),
    *(b"\x82\1", b"F1e400\n", b"G" + b"\x7f\xf0" + bytes(6), b"Pstorage\n", b"X\6\0\0\0values"),
    *(b"U\5shape", b"X\1\0\0\0x", b"}X\6\0\0\0valuesNs", b"\x80\5", b"\x80\xff", b"I01\n"),
    *(b"(" * 50_000, b"]" * 20_000 + b"a" * 19_999, b"}}\x86b"),
)


@dataclass
class Member:
    """An entry of the archive as it is stored."""

    name: bytes
    method: int
    crc: int
    size: int
    packed: bytes

    @classmethod
    def stored(cls, name: bytes, content: bytes) -> Member:
        return cls(name, zipfile.ZIP_STORED, zlib.crc32(content), len(content), content)

    def content(self) -> bytes:
        """The content, decompressed up to a megabyte."""
        if self.method == zipfile.ZIP_STORED:
            return self.packed
        if self.method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.packed, 1 << 20)
        raise ValueError("another method")


def read(data: bytes) -> list[Member]:
    """The entries of an archive. ValueError where it is damaged already."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError) as error:
        raise ValueError(str(error)) from error
    members = []
    for info in entries:
        start = info.header_offset + 30
        if start > len(data):
            raise ValueError("an entry outside")
        start += sum(struct.unpack_from("<HH", data, start - 4))
        packed = data[start : start + info.compress_size]
        name = info.filename.encode()
        members.append(Member(name, info.compress_type, info.CRC, info.file_size, packed))
    return members


def write(members: list[Member]) -> bytes:
    """An archive of these entries, whatever they say of themselves."""
    out, directory = bytearray(), bytearray()
    for member in members:
        fields = (member.method, 0, 0x21, member.crc, len(member.packed), member.size)
        common = struct.pack("<HHHHIII", 0, *fields) + struct.pack("<HH", len(member.name), 0)
        directory += b"PK\1\2" + struct.pack("<HH", 20, 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(out)) + member.name
        out += b"PK\3\4" + struct.pack("<H", 20) + common + member.name + member.packed
    counts = (0, 0, len(members), len(members), len(directory), len(out), 0)
    return bytes(out + directory + b"PK\5\6" + struct.pack("<HHHHIIH", *counts))


def change(data: bytes, chance: Random) -> bytes:
    """Change a field of the archive, a member or the pickle."""
    if chance.random() < 0.15:
        return _change_field(data, chance)
    members = read(data)
    pickles = [i for i, member in enumerate(members) if member.name.endswith(b"data.pkl")]
    if pickles and chance.random() < 0.8:
        member = members[pickles[0]]
        members[pickles[0]] = Member.stored(member.name, change_pickle(member.content(), chance))
    else:
        _change_member(members, chance)
    return write(members)


def _change_field(data: bytes, chance: Random) -> bytes:
    signature = chance.choice(list(_FIELDS))
    place = chance.choice([found.start() for found in re.finditer(re.escape(signature), data)])
    offset, code = chance.choice(_FIELDS[signature])
    width = struct.calcsize(code)
    number = chance.choice((*NUMBERS, len(data) - 1, 8, 12, 14, 93)) % (1 << 8 * width)
    start = place + offset
    return data[:start] + number.to_bytes(width, "little") + data[start + width :]


@functools.cache
def _bomb() -> tuple[int, int, bytes]:
    """Method 12 (bzip2): checksum, size and data of many zeros."""
    zeros = bytes(_BOMB)
    return zlib.crc32(zeros), len(zeros), bz2.compress(zeros)


def _change_member(members: list[Member], chance: Random) -> None:
    index = chance.randrange(len(members))
    member = members[index]
    kind = chance.random()
    if kind < 0.15:
        del members[index]
    elif kind < 0.3:
        members.insert(index, replace(chance.choice(members)))
    elif kind < 0.4:
        member.name = chance.choice(members).name
    elif kind < 0.45:
        member.name = chance.choice((b"", b"/data.pkl", b"archive/data/../data/1", b"\xff", b"a/b"))
    elif kind < 0.7:
        size = chance.choice((0, 1, 3, len(member.packed) // 2, len(member.packed) * 2, 1 << 16))
        members[index] = Member.stored(member.name, member.packed[:size].ljust(size, b"\1"))
    elif kind < 0.9:
        compressed = zlib.compress(member.content(), 1)[2:-4]
        member.method, member.packed = zipfile.ZIP_DEFLATED, compressed
    else:
        chosen = [member] if chance.random() < 0.8 else members
        for victim in chosen:
            victim.crc, victim.size, victim.packed = _bomb()
            victim.method = zipfile.ZIP_BZIP2


def change_pickle(data: bytes, chance: Random) -> bytes:
    """Change an opcode or a few. ValueError where the pickle is damaged already."""
    operations = list(pickletools.genops(data))
    starts = [position or 0 for _, _, position in operations]
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    index = chance.randrange(len(pieces))
    kind = chance.random()
    if kind < 0.1:
        del pieces[index]
    elif kind < 0.2:
        start = chance.randrange(len(pieces))
        pieces[index:index] = pieces[start : start + chance.choice((1, 1, 2, 5, 30))]
    elif kind < 0.25:
        other = chance.randrange(len(pieces))
        pieces[index], pieces[other] = pieces[other], pieces[index]
    elif kind < 0.55:
        pieces.insert(index, chance.choice(_OPCODES))
    elif kind < 0.7:
        pieces[index] = chance.choice(_OPCODES)
    else:
        _change_argument(pieces, [argument for _, argument, _ in operations], chance)
    return b"".join(pieces)


def _change_argument(pieces: list[bytes], arguments: list[object], chance: Random) -> None:
    """Another number or text where there is one."""
    kind = chance.choice((int, int, str))
    places = [i for i, value in enumerate(arguments) if isinstance(value, kind)]
    # What is put into the memo and taken from it is not meant.
    places = [i for i in places if pieces[i][:1] not in b"qrhjpg\x80\x95"]
    index = chance.choice(places)
    if kind is int:
        number = chance.choice((*NUMBERS, -1, -(2**31), 2**200))
        encoded = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        pieces[index] = b"\x8a" + bytes([len(encoded)]) + encoded
    else:
        pieces[index] = pieces[chance.choice(places)]
