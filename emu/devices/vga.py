"""The registers of a VGA, and the text that its memory shows (IBM PS/2 Video Subsystem Technical Reference).

The adapter shows 80 by 25 characters of colour text and nothing else: TEXT_ADDRESSES is RAM of the guest, one word a cell with
the character in its low byte. Registers keep what is written to them, so that a driver finds its settings again; of
them only the start address has an effect. They begin as a BIOS leaves them in mode 3, with the ports of a colour adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from emu.devices.clock import Clock, ticks_at

PORT_ATTRIBUTE, PORT_ATTRIBUTE_DATA, PORT_MISC, PORT_SEQUENCER = 0x3C0, 0x3C1, 0x3C2, 0x3C4
PORT_DAC_MASK, PORT_DAC_READ, PORT_DAC_WRITE, PORT_DAC_DATA = 0x3C6, 0x3C7, 0x3C8, 0x3C9
PORT_FEATURE_READ, PORT_MISC_READ, PORT_GRAPHICS, PORT_CRTC, PORT_STATUS = 0x3CA, 0x3CC, 0x3CE, 0x3D4, 0x3DA
INDEXED = {PORT_SEQUENCER: 0x07, PORT_GRAPHICS: 0x0F, PORT_CRTC: 0xFF}  # an index port, its data port after it: index bits
ATTRIBUTE_INDEX, ATTRIBUTE_INDEX_KEPT = 0x1F, 0x3F  # bit 5 turns the picture on
CRTC_START_HIGH, CRTC_START_LOW, CRTC_RETRACE_END = 0x0C, 0x0D, 0x11
CRTC_PROTECT, CRTC_PROTECTED, CRTC_OVERFLOW, OVERFLOW_WRITABLE = 0x80, 8, 0x07, 0x10  # registers 0-7, but for one bit
DAC_READING, DAC_WRITING = 0x03, 0x00  # what port 3C7 says
DAC_BYTES = 256 * 3
STATUS_BLANK, STATUS_RETRACE = 0x01, 0x08

# Registers of mode 3.
MISC = 0x67
SEQUENCER = bytes.fromhex("0300030002")
GRAPHICS = bytes.fromhex("0000000000100e00ff")
ATTRIBUTES = bytes.fromhex("000102030405140738393a3b3c3d3e3f0c000f0800")
CRTC = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")

# Timing of mode 3: 9 dots a character, 100 characters a line and 449 lines a frame, which makes 70 Hz.
CHARACTER_HERTZ = 28_322_000 // 9
LINE_CHARACTERS, FRAME_LINES = 100, 449
VISIBLE_LINES = 400
RETRACE_LINES = range(412, 414)

COLUMNS, ROWS = 80, 25
TEXT_ADDRESSES = range(0xB8000, 0xC0000)
CELLS = len(TEXT_ADDRESSES) // 2
CONTROL_GLYPHS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"  # 00 to 1F
GLYPHS = CONTROL_GLYPHS + bytes(range(0x20, 0x7F)).decode("ascii") + "⌂" + bytes(range(0x80, 0xFF)).decode("cp437") + " "


def screen_text(read_physical: Callable[[int, int], bytes], start_address: int) -> list[str]:
    """What is on the screen, as ROWS lines of COLUMNS characters; `start_address` counts cells from the start of text memory."""
    memory = read_physical(TEXT_ADDRESSES.start, len(TEXT_ADDRESSES))
    text = "".join(GLYPHS[memory[2 * ((start_address + cell) % CELLS)]] for cell in range(COLUMNS * ROWS))
    return [text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS)]


def first_colours() -> bytes:
    """The palette of text modes: six bits of each number are a weak and a strong bit of red, green and blue."""
    parts = ((0x04, 0x20), (0x02, 0x10), (0x01, 0x08))
    return bytes(
        (0x2A if number & strong else 0) + (0x15 if number & weak else 0) for number in range(64) for strong, weak in parts
    )


class Vga:
    """The adapter."""

    WIRING: ClassVar = frozenset({"_clock"})

    PORTS = (range(PORT_ATTRIBUTE, PORT_GRAPHICS + 2), range(PORT_CRTC, PORT_CRTC + 2), range(PORT_STATUS, PORT_STATUS + 1))

    def __init__(self, clock: Clock, insns_per_second: int) -> None:
        self._clock = clock
        self._insns_per_second = insns_per_second
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        first = {PORT_SEQUENCER: SEQUENCER, PORT_GRAPHICS: GRAPHICS, PORT_CRTC: CRTC}
        self._registers = {port: bytearray(first[port].ljust(mask + 1, b"\0")) for port, mask in INDEXED.items()}
        self._indexes = dict.fromkeys(INDEXED, 0)
        self._attributes = bytearray(ATTRIBUTES.ljust(ATTRIBUTE_INDEX + 1, b"\0"))
        self._attribute_index = ATTRIBUTE_INDEX_KEPT & ~ATTRIBUTE_INDEX
        self._attribute_takes_data = False  # the flip-flop: what the next write of 3C0 is
        self._colours = bytearray(first_colours().ljust(DAC_BYTES, b"\0"))
        self._colour_byte = 0  # where port 3C9 is
        self._dac_state = DAC_WRITING
        self._plain = {PORT_MISC: MISC, PORT_DAC_MASK: 0xFF, PORT_STATUS: 0}  # by the port that writes them

    @property
    def start_address(self) -> int:
        """The cell that is shown at the top left."""
        registers = self._registers[PORT_CRTC]
        return registers[CRTC_START_HIGH] << 8 | registers[CRTC_START_LOW]

    def read(self, port: int, _size: int) -> int:
        """IN."""
        if port in INDEXED:
            return self._indexes[port]
        if port - 1 in INDEXED:
            return self._registers[port - 1][self._indexes[port - 1]]
        if port == PORT_STATUS:
            self._attribute_takes_data = False
            return self._status()
        if port == PORT_DAC_DATA:
            return self._next_colour(None)
        return {
            PORT_ATTRIBUTE: self._attribute_index,
            PORT_ATTRIBUTE_DATA: self._attributes[self._attribute_index & ATTRIBUTE_INDEX],
            PORT_MISC_READ: self._plain[PORT_MISC],
            PORT_FEATURE_READ: self._plain[PORT_STATUS],
            PORT_DAC_MASK: self._plain[PORT_DAC_MASK],
            PORT_DAC_READ: self._dac_state,
            PORT_DAC_WRITE: self._colour_byte // 3,
        }.get(port, 0)

    def _status(self) -> int:
        """Where the beam is: outside the picture, and in the vertical retrace."""
        line, column = divmod(ticks_at(self._clock.now(), CHARACTER_HERTZ, self._insns_per_second), LINE_CHARACTERS)
        line %= FRAME_LINES
        status = STATUS_BLANK if line >= VISIBLE_LINES or column >= COLUMNS else 0
        return status | (STATUS_RETRACE if line in RETRACE_LINES else 0)

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        if port in INDEXED:
            self._indexes[port] = value & INDEXED[port]
        elif port - 1 in INDEXED:
            self._set_register(port - 1, value)
        elif port == PORT_ATTRIBUTE:
            self._write_attribute(value)
        elif port in (PORT_DAC_READ, PORT_DAC_WRITE):
            self._colour_byte = 3 * value
            self._dac_state = DAC_READING if port == PORT_DAC_READ else DAC_WRITING
        elif port == PORT_DAC_DATA:
            self._next_colour(value)
        elif port in self._plain:
            self._plain[port] = value

    def _set_register(self, port: int, value: int) -> None:
        registers, index = self._registers[port], self._indexes[port]
        if port == PORT_CRTC and index < CRTC_PROTECTED and registers[CRTC_RETRACE_END] & CRTC_PROTECT:
            kept = ~OVERFLOW_WRITABLE if index == CRTC_OVERFLOW else 0xFF
            value = registers[index] & kept | value & ~kept
        registers[index] = value

    def _write_attribute(self, value: int) -> None:
        if self._attribute_takes_data:
            self._attributes[self._attribute_index & ATTRIBUTE_INDEX] = value
        else:
            self._attribute_index = value & ATTRIBUTE_INDEX_KEPT
        self._attribute_takes_data = not self._attribute_takes_data

    def _next_colour(self, value: int | None) -> int:
        """The byte at which the palette is, replaced if there is a value; then comes the next one."""
        at = self._colour_byte
        self._colour_byte = (at + 1) % DAC_BYTES
        if value is not None:
            self._colours[at] = value
        return self._colours[at]
