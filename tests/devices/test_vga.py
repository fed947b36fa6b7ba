# SPDX-License-Identifier: GPL-2.0-or-later
"""The VGA's registers keep what is written, its status follows the beam, and its memory reads as text."""

from __future__ import annotations

import pytest

from emu.devices import vga
from tests.devices.helpers import INSNS_PER_SECOND, Bench

CRTC, SEQUENCER, GRAPHICS, ATTRIBUTE, STATUS = 0x3D4, 0x3C4, 0x3CE, 0x3C0, 0x3DA
DAC_READ, DAC_WRITE, DAC_DATA = 0x3C7, 0x3C8, 0x3C9
BLANK, RETRACE = 0x01, 0x08
FRAME_INSNS = INSNS_PER_SECOND * 449 * 100 / (28_322_000 // 9)


def get(bench: Bench, port: int, index: int) -> int:
    bench.write(port, index)
    return bench.read(port + 1)


def put(bench: Bench, port: int, index: int, value: int) -> None:
    bench.write(port, index | value << 8, size=2)


def get_attribute(bench: Bench, index: int) -> int:
    bench.read(STATUS)
    bench.write(ATTRIBUTE, index)
    return bench.read(ATTRIBUTE + 1)


@pytest.mark.parametrize(("port", "count"), [(CRTC, 0x19), (SEQUENCER, 5), (GRAPHICS, 9)])
def test_indexed_registers_read_back(bench: Bench, port: int, count: int) -> None:
    put(bench, CRTC, 0x11, 0x0E)  # takes the write protection off
    written = {index: 0x51 + 7 * index & 0x7F for index in range(count)}
    for index, value in written.items():
        put(bench, port, index, value)
    assert {index: get(bench, port, index) for index in written} == written
    assert bench.read(port) == count - 1


def test_write_protection_of_the_timing(bench: Bench) -> None:
    assert get(bench, CRTC, 0x11) & 0x80
    before = [get(bench, CRTC, index) for index in range(8)]
    for index in range(8):
        put(bench, CRTC, index, ~before[index] & 0xFF)
    assert [get(bench, CRTC, index) for index in range(8)] == [*before[:7], before[7] ^ 0x10]


def test_attribute_port_takes_index_and_data_in_turn(bench: Bench) -> None:
    bench.read(STATUS)
    bench.write(ATTRIBUTE, 0x05, 0x2A, 0x06, 0x15, 0x30)
    bench.read(STATUS)
    bench.write(ATTRIBUTE, 0x27)  # an index again, since the status was read
    assert bench.read(ATTRIBUTE) == 0x27
    assert [get_attribute(bench, index) for index in (5, 6, 0x10)] == [0x2A, 0x15, 0x0C]


@pytest.mark.parametrize(("write", "read"), [(0x3C2, 0x3CC), (0x3DA, 0x3CA), (0x3C6, 0x3C6)])
def test_plain_registers_read_back(bench: Bench, write: int, read: int) -> None:
    bench.write(write, 0xA5)
    assert bench.read(read) == 0xA5


def test_palette_goes_on_by_itself_and_wraps(bench: Bench) -> None:
    bench.write(DAC_WRITE, 0xFF)
    bench.write(DAC_DATA, 1, 2, 3, 4, 5, 6)
    assert (bench.read(DAC_READ), bench.read(DAC_WRITE)) == (0, 1)
    bench.write(DAC_READ, 0xFF)
    assert bench.read(DAC_READ) == 3
    assert [bench.read(DAC_DATA) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_palette_begins_with_the_colours_of_text(bench: Bench) -> None:
    bench.write(DAC_READ, 1)
    assert [bench.read(DAC_DATA) for _ in range(3)] == [0, 0, 0x2A]
    bench.write(DAC_READ, 0x14)  # brown, which takes its weak bit of green
    assert [bench.read(DAC_DATA) for _ in range(3)] == [0x2A, 0x15, 0]


def test_status_follows_the_beam(bench: Bench) -> None:
    places = {(0, 0): 0, (0, 79): 0, (0, 80): BLANK, (399, 0): 0, (400, 0): BLANK, (411, 99): BLANK}
    places |= {(412, 0): BLANK | RETRACE, (413, 99): BLANK | RETRACE, (414, 0): BLANK, (448, 99): BLANK}
    for frame in (0, 1, 1000):
        for (line, column), status in places.items():
            bench.clock.time = int((frame + (line * 100 + column + 0.5) / 44_900) * FRAME_INSNS)
            assert bench.read(STATUS) == status, (frame, line, column)


def test_reset_gives_mode_3_again(bench: Bench) -> None:
    put(bench, CRTC, 0x0C, 0x12)
    bench.write(0x3C2, 0)
    bench.board.reset()
    assert (get(bench, CRTC, 0x0C), bench.read(0x3CC), get(bench, CRTC, 0x01)) == (0, 0x67, 79)


# ---- text ----


def text_memory(cells: dict[int, int]) -> bytes:
    memory = bytearray(b"\0\x07" * vga.CELLS)
    for at, character in cells.items():
        memory[2 * at] = character
    return bytes(memory)


def screen(cells: dict[int, int], start_address: int = 0) -> list[str]:
    def read_physical(pa: int, size: int) -> bytes:
        return text_memory(cells)[pa - 0xB8000 :][:size]

    return vga.screen_text(read_physical, start_address)


def test_screen_is_25_lines_of_80() -> None:
    lines = screen({0: ord("a"), 79: ord("b"), 80: ord("c"), 1999: ord("d"), 2000: ord("e")})
    assert [len(line) for line in lines] == [80] * 25
    assert (lines[0], lines[1], lines[24]) == ("a" + " " * 78 + "b", "c".ljust(80), "d".rjust(80))
    assert "e" not in "".join(lines)


def test_start_address_scrolls_and_wraps() -> None:
    cells = {80: ord("x"), 0: ord("y")}
    assert screen(cells, 80)[0].strip() == "x"
    assert screen(cells, 0x4000 - 80)[1].strip() == "y"


def test_start_address_comes_from_the_crtc(bench: Bench) -> None:
    put(bench, CRTC, 0x0C, 0x12)
    put(bench, CRTC, 0x0D, 0x34)
    assert bench.board.vga.start_address == 0x1234


def test_every_code_has_one_glyph() -> None:
    text = "".join(screen({code: code for code in range(256)}))[:256]
    assert text[:0x20] == " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    assert text[0x20:0x80] == bytes(range(0x20, 0x7F)).decode() + "⌂"
    assert (text[0x80], text[0xC9], text[0xDB], text[0xFE], text[0xFF]) == ("Ç", "╔", "█", "■", " ")
    assert text.isprintable()
