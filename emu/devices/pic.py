"""The pair of 8259A interrupt controllers: fifteen lines, the slave behind the master's line 2 (Intel 8259A data sheet).

As in QEMU and other than in the data sheet, an edge stays requested when its line drops before the acknowledge. ICW1's
level bit is ignored as by PC chipsets, which have the ELCR for it; so are ICW3, as the cascade is wired, and 8080 mode.

Invariants (asserted by `check`):

1. IRR, ISR and IMR have eight bits; a level-triggered line is in IRR only while it is high.
2. With automatic EOI nothing stays in service.
3. INTR is high exactly while the master has a request to pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from emu.errors import BrokenInvariantError

CASCADE = 2
SPURIOUS = 7
ICW1_START, ICW1_SINGLE, ICW1_NEEDS_ICW4 = 0x10, 0x02, 0x01
ICW4_AUTO_EOI, ICW4_SPECIAL_NESTED = 0x02, 0x10
OCW3 = 0x08
OCW3_POLL, OCW3_READ, OCW3_READ_ISR, OCW3_SPECIAL_SET, OCW3_SPECIAL = 0x04, 0x02, 0x01, 0x40, 0x20
# Commands of OCW2, bits 7-5.
EOI, EOI_SPECIFIC, EOI_ROTATE, EOI_ROTATE_SPECIFIC = 1, 3, 5, 7
SET_PRIORITY, ROTATE_AUTO_SET, ROTATE_AUTO_CLEAR = 6, 4, 0
POLL_HAS_REQUEST = 0x80


class Pic:
    """One 8259A; `cascade_lines` are the inputs that slaves hang on, as bits."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, cascade_lines: int) -> None:
        self._cascade_lines = cascade_lines
        self.level_lines = 0  # ELCR: lines that are level-triggered
        self.lines = 0  # inputs as they are now
        self.reset()

    def reset(self) -> None:
        """Power-on state; the inputs keep their levels, and what is edge-triggered needs a new edge."""
        self.irr = self.lines & self.level_lines  # requests
        self.isr = 0  # in service
        self.imr = 0  # masked
        self.vector_base = 0
        self._expected_icw = 0  # 2, 3 or 4 while initialization words are due
        self._needs_icw4 = False
        self._single = False
        self._auto_eoi = False
        self._rotates_auto = False
        self._special_nested = False
        self._special_mask = False
        self._reads_isr = False
        self.polls = False  # the next read is a poll, which acknowledges
        self._lowest = 7  # the line of lowest priority

    def set_line(self, line: int, high: bool) -> None:
        """Drive an input."""
        bit = 1 << line
        if high:
            if self.level_lines & bit or not self.lines & bit:
                self.irr |= bit
            self.lines |= bit
        else:
            self.lines &= ~bit
            if self.level_lines & bit:
                self.irr &= ~bit

    def set_level_lines(self, lines: int) -> None:
        """Choose the level-triggered inputs: their requests are from now on what the lines say."""
        self.level_lines = lines
        self.irr = self.irr & ~lines | self.lines & lines

    def _first(self, bits: int) -> int:
        """The line of highest priority among `bits`, 8 if there is none; as a distance from the top of the order."""
        if not bits:
            return 8
        for distance in range(8):
            if bits >> (self._lowest + 1 + distance) % 8 & 1:
                return distance
        return 8

    def _line_at(self, distance: int) -> int:
        return (self._lowest + 1 + distance) % 8

    def pending(self) -> int | None:
        """The line that INT is raised for, if any; none while initialization words are due."""
        requests = self.irr & ~self.imr
        if not requests or self._expected_icw:
            return None
        request = self._first(requests)
        in_service = self.isr & ~self.imr if self._special_mask else self.isr
        if self._special_nested:
            in_service &= ~self._cascade_lines
        if request >= self._first(in_service):
            return None
        return self._line_at(request)

    def take(self, line: int) -> None:
        """INTA: the line goes in service."""
        if not self.level_lines >> line & 1:
            self.irr &= ~(1 << line)
        if not self._auto_eoi:
            self.isr |= 1 << line
        elif self._rotates_auto:
            self._lowest = line

    def read_command(self) -> int:
        """A read of the command port: the answer to a poll, ISR or IRR."""
        if self.polls:
            return self._poll()
        return self.isr if self._reads_isr else self.irr

    def _poll(self) -> int:
        self.polls = False
        line = self.pending()
        if line is None:
            return 0
        self.take(line)
        return POLL_HAS_REQUEST | line

    def read_data(self) -> int:
        """A read of the data port: the mask."""
        return self._poll() if self.polls else self.imr

    def write_command(self, value: int) -> None:
        """A write of the command port: ICW1, OCW2 or OCW3."""
        if value & ICW1_START:
            self._initialize(value)
        elif value & OCW3:
            self._operate(value)
        else:
            self._end_of_interrupt(value >> 5, value & 7)

    def _initialize(self, value: int) -> None:
        self.reset()
        self._expected_icw = 2
        self._needs_icw4 = bool(value & ICW1_NEEDS_ICW4)
        self._single = bool(value & ICW1_SINGLE)

    def _operate(self, value: int) -> None:
        if value & OCW3_SPECIAL_SET:
            self._special_mask = bool(value & OCW3_SPECIAL)
        if value & OCW3_POLL:
            self.polls = True
        elif value & OCW3_READ:
            self._reads_isr = bool(value & OCW3_READ_ISR)

    def _end_of_interrupt(self, command: int, line: int) -> None:
        if command in (ROTATE_AUTO_SET, ROTATE_AUTO_CLEAR):
            self._rotates_auto = command == ROTATE_AUTO_SET
        elif command == SET_PRIORITY:
            self._lowest = line
        elif command in (EOI, EOI_ROTATE):
            served = self._first(self.isr & ~self.imr if self._special_mask else self.isr)
            if served < 8:
                self._retire(self._line_at(served), rotate=command == EOI_ROTATE)
        elif command in (EOI_SPECIFIC, EOI_ROTATE_SPECIFIC):
            self._retire(line, rotate=command == EOI_ROTATE_SPECIFIC)

    def _retire(self, line: int, *, rotate: bool) -> None:
        self.isr &= ~(1 << line)
        if rotate:
            self._lowest = line

    def write_data(self, value: int) -> None:
        """A write of the data port: ICW2 to ICW4 while they are due, else the mask."""
        if self._expected_icw == 2:
            self.vector_base = value & 0xF8
            self._expected_icw = 3 if not self._single else 4 if self._needs_icw4 else 0
        elif self._expected_icw == 3:  # the cascade is wired on this board
            self._expected_icw = 4 if self._needs_icw4 else 0
        elif self._expected_icw == 4:
            self._auto_eoi = bool(value & ICW4_AUTO_EOI)
            self._special_nested = bool(value & ICW4_SPECIAL_NESTED)
            self._expected_icw = 0
        else:
            self.imr = value

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError."""
        if (self.irr | self.isr | self.imr) & ~0xFF or self.irr & self.level_lines & ~self.lines:
            raise BrokenInvariantError("8259 invariant 1: a register holds what it cannot")
        if self._auto_eoi and self.isr:
            raise BrokenInvariantError("8259 invariant 2: a line is in service under automatic EOI")


class PicPair:
    """Master and slave as on a PC, at ports 20, 21, A0, A1 and, for the trigger modes, 4D0 and 4D1."""

    WIRING: ClassVar = frozenset({"on_request"})

    PORTS = (range(0x20, 0x22), range(0xA0, 0xA2), range(0x4D0, 0x4D2))
    LEVEL_ALLOWED = (0xF8, 0xDE)  # timer, keyboard, cascade, RTC and FPU lines are edge-triggered for good

    def __init__(self) -> None:
        self.master, self.slave = Pic(cascade_lines=1 << CASCADE), Pic(cascade_lines=0)
        self._is_asking = False  # INTR
        self.on_request: Callable[[], None] | None = None  # called when it rises

    def reset(self) -> None:
        """Power-on state."""
        for pic in (self.master, self.slave):
            pic.set_level_lines(0)
            pic.reset()
        self._cascade()

    def set_line(self, irq: int, high: bool) -> None:
        """Drive IRQ 0 to 15."""
        if irq < 8:
            self.master.set_line(irq, high)
            self._drive_output()
        else:
            self.slave.set_line(irq - 8, high)
            self._cascade()

    def _cascade(self) -> None:
        self.master.set_line(CASCADE, self.slave.pending() is not None)
        self._drive_output()

    def _drive_output(self) -> None:
        was_asking = self._is_asking
        self._is_asking = self.master.pending() is not None
        if self._is_asking and not was_asking and self.on_request is not None:
            self.on_request()

    def has_interrupt(self) -> bool:
        """Whether the processor's INTR input is high."""
        return self._is_asking

    def acknowledge(self) -> int:
        """INTA: the vector for the processor; with no request left, that of the spurious IRQ 7 (or 15)."""
        line = self.master.pending()
        if line is None:
            return self.master.vector_base + SPURIOUS
        self.master.take(line)
        if line != CASCADE:
            self._drive_output()
            return self.master.vector_base + line
        slave_line = self.slave.pending()
        if slave_line is None:
            self._cascade()
            return self.slave.vector_base + SPURIOUS
        self.slave.take(slave_line)
        self.master.set_line(CASCADE, False)
        self._cascade()
        return self.slave.vector_base + slave_line

    def _at(self, port: int) -> Pic:
        return self.slave if port in self.PORTS[1] or port == self.PORTS[2][1] else self.master

    def read(self, port: int, _size: int) -> int:
        """IN."""
        pic = self._at(port)
        if port in self.PORTS[2]:
            return pic.level_lines
        if pic is self.slave and pic.polls:
            self.master.set_line(CASCADE, False)  # as after INTA: what is still pending makes a new edge
        value = pic.read_data() if port & 1 else pic.read_command()
        self._cascade()
        return value

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        pic = self._at(port)
        if port in self.PORTS[2]:
            pic.set_level_lines(value & self.LEVEL_ALLOWED[port & 1])
        elif port & 1:
            pic.write_data(value)
        else:
            pic.write_command(value)
        self._cascade()

    def check(self) -> None:
        """Assert the invariants of both."""
        self.master.check()
        self.slave.check()
        if self._is_asking != (self.master.pending() is not None):
            raise BrokenInvariantError(f"8259 invariant 3: INTR is {self._is_asking}")
