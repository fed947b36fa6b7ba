"""What an ATA drive says of itself: the 256 words of IDENTIFY DEVICE (ATA/ATAPI-6, 8.15), and transfer modes."""

from __future__ import annotations

import struct

HEADS, SECTORS_A_TRACK = 16, 63  # of the default CHS translation
MAX_CYLINDERS = 16383  # more is not told: beyond, CHS does not reach
MAX_28_BIT = (1 << 28) - 1
MODEL, SERIAL, FIRMWARE = "EMU HARDDISK", "EM00001", "1.0"  # the serial number of the first drive
DEFAULT_MODE = 0x45  # Ultra DMA 5
PIO_DEFAULT, PIO_FLOW, MULTIWORD, ULTRA = 0x00, 0x08, 0x20, 0x40  # transfer modes: the kind, plus a number
IS_FIXED = 0x0040
CAN_LBA_DMA_IORDY = 1 << 11 | 1 << 9 | 1 << 8
ALL_VALID = 1 << 2 | 1 << 1 | 1 << 0  # words 54-58, 64-70 and 88
ATA_4_TO_6 = 1 << 6 | 1 << 5 | 1 << 4
VALID = 1 << 14  # words 83, 84, 86, 87 and 93 are to be believed
HAS_FLUSH_EXT, HAS_FLUSH, HAS_LBA48 = 1 << 13, 1 << 12, 1 << 10
HAS_LOOK_AHEAD, HAS_WRITE_CACHE = 1 << 6, 1 << 5
RESET_PASSED = (0x2001, 0x2100)  # word 93, of drive 0 and of drive 1: an 80-wire cable, it passed


def is_mode(mode: int) -> bool:
    """Whether the drive has a transfer mode."""
    return mode in (0, 1) or any(kind <= mode <= kind + last for kind, last in ((PIO_FLOW, 4), (MULTIWORD, 2), (ULTRA, 5)))


def text(value: str, size: int) -> bytes:
    """ASCII, padded, two characters a word with the first one high."""
    padded = value.ljust(size)[:size].encode("ascii")
    return b"".join(padded[at + 1 : at + 2] + padded[at : at + 1] for at in range(0, size, 2))


def _selected(mode: int, kind: int, count: int) -> int:
    """A word of supported modes with the chosen one: bits 0 up, and 8 up."""
    chosen = mode - kind
    return (1 << count) - 1 | (1 << 8 + chosen if 0 <= chosen < count else 0)


def words(
    sectors: int, *, serial: str, is_second: bool, geometry: tuple[int, int], multiple: int, max_multiple: int, mode: int
) -> bytes:
    """The 512 bytes; `geometry` are heads and sectors a track that CHS addresses have now."""
    heads, track = geometry
    default_cylinders = min(sectors // (HEADS * SECTORS_A_TRACK), MAX_CYLINDERS)
    cylinders = min(sectors // (heads * track), 0xFFFF)
    reached = min(sectors, MAX_28_BIT)
    told = dict.fromkeys(range(256), 0)
    told |= {0: IS_FIXED, 1: default_cylinders, 3: HEADS, 6: SECTORS_A_TRACK}
    told |= {47: 0x8000 | max_multiple, 48: 1, 49: CAN_LBA_DMA_IORDY, 50: VALID, 51: 0x200, 52: 0x200, 53: ALL_VALID}
    told |= {54: cylinders, 55: heads, 56: track} | _split(57, cylinders * heads * track, 2)
    told |= {59: 0x100 | multiple if multiple else 0} | _split(60, reached, 2)
    told |= {63: _selected(mode, MULTIWORD, 3), 64: 0x3} | dict.fromkeys(range(65, 69), 120)  # PIO 3 and 4; ns a cycle
    told |= {80: ATA_4_TO_6, 82: HAS_LOOK_AHEAD | HAS_WRITE_CACHE, 83: VALID | HAS_FLUSH_EXT | HAS_FLUSH | HAS_LBA48, 84: VALID}
    told |= {85: HAS_LOOK_AHEAD | HAS_WRITE_CACHE, 86: HAS_FLUSH_EXT | HAS_FLUSH | HAS_LBA48, 87: VALID}
    told |= {88: _selected(mode, ULTRA, 6), 93: VALID | RESET_PASSED[is_second]} | _split(100, sectors, 4)
    page = bytearray(struct.pack("<256H", *told.values()))
    for word, value, size in ((10, serial, 20), (23, FIRMWARE, 8), (27, MODEL, 40)):
        page[2 * word : 2 * word + size] = text(value, size)
    return bytes(page)


def _split(first: int, value: int, count: int) -> dict[int, int]:
    """A number over several words, the low one first."""
    return {first + n: value >> 16 * n & 0xFFFF for n in range(count)}
