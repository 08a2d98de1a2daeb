"""Changes to an Ogg file, whose pages have checksums that a demuxer looks at."""

from __future__ import annotations

from compat_tests.fuzz.values import NUMBERS, Random

_PAGE = b"OggS"
_FIELDS = {4: 1, 5: 1, 6: 8, 14: 4, 18: 4, 26: 1}  # bytes by their offset in a page's head


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_TABLE = _table()


def _checksum(page: bytearray) -> int:
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value


def change(data: bytes, chance: Random) -> bytes:
    """Change a page's head or content, and write its checksum anew."""
    starts = [0]
    while (found := data.find(_PAGE, starts[-1] + 1)) >= 0:
        starts.append(found)
    index = chance.randrange(len(starts))
    pages = [bytearray(data[a:b]) for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    page = pages[index]
    if chance.random() < 0.1:
        pages.insert(chance.randrange(len(pages)), bytearray(page))
    elif chance.random() < 0.4:
        place = chance.choice(list(_FIELDS))
        width = _FIELDS[place]
        number = chance.choice(NUMBERS) % (1 << 8 * width)
        page[place : place + width] = number.to_bytes(width, "little")
    else:
        for _ in range(chance.randrange(1, 5)):
            page[chance.randrange(27, len(page))] = chance.randrange(256)
    page[22:26] = bytes(4)
    page[22:26] = _checksum(page).to_bytes(4, "little")
    return b"".join(pages)
