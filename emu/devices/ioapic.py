"""The I/O APIC (Intel 82093AA data sheet): 24 pins, each with an entry that says where its interrupt goes.

ISA IRQ n is on pin n, but the 8254 is on pin 2. Entries deliver fixed, lowest-priority and NMI messages; others have no effect.

Invariant (asserted by `check`): only a level-triggered entry waits for an end of interrupt.
"""

from __future__ import annotations

from typing import ClassVar

from emu.devices.apic import NMI, LocalApic
from emu.errors import BrokenInvariantError

ADDRESS = 0xFEC0_0000
ADDRESSES = range(ADDRESS, ADDRESS + 0x1000)
VERSION = 0x11
PINS = 24
TIMER_PIN = 2
SELECT, WINDOW = 0x00, 0x10
ID, VERSION_REGISTER, ARBITRATION, TABLE = 0, 1, 2, 0x10
LOGICAL, ACTIVE_LOW, REMOTE_IRR, LEVEL, MASKED = 1 << 11, 1 << 13, 1 << 14, 1 << 15, 1 << 16
LOW_BITS = 0x1_AFFF  # of an entry, that can be written
HIGH_BITS = 0xFF << 24


class IoApic:
    """The I/O APIC in front of one local APIC."""

    WIRING: ClassVar = frozenset({"_apic"})

    def __init__(self, apic: LocalApic) -> None:
        self._apic = apic
        self._lines = 0  # inputs as they are now
        self.reset()

    def reset(self) -> None:
        """Power-on state: all pins masked. The inputs keep their levels."""
        self._select = 0
        self._id = 0
        self._low = [MASKED] * PINS
        self._high = [0] * PINS

    def set_irq(self, irq: int, high: bool) -> None:
        """Drive the pin of an ISA interrupt."""
        pin = irq or TIMER_PIN
        if bool(self._lines >> pin & 1) == high and not self._low[pin] & LEVEL:
            return
        was_asserted = self._is_asserted(pin)
        self._lines = self._lines | 1 << pin if high else self._lines & ~(1 << pin)
        if self._low[pin] & LEVEL:
            self._serve_level(pin)
        elif self._is_asserted(pin) and not was_asserted and not self._low[pin] & MASKED:
            self._deliver(pin)

    def _is_asserted(self, pin: int) -> bool:
        return bool(self._lines >> pin & 1) != bool(self._low[pin] & ACTIVE_LOW)

    def _serve_level(self, pin: int) -> None:
        entry = self._low[pin]
        if entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL and self._is_asserted(pin) and self._deliver(pin):
            self._low[pin] |= REMOTE_IRR

    def _deliver(self, pin: int) -> bool:
        entry = self._low[pin]
        return self._apic.accept(
            self._high[pin] >> 24, entry >> 8 & 7, entry & 0xFF, logical=bool(entry & LOGICAL), level=bool(entry & LEVEL)
        )

    def end_of_interrupt(self, vector: int) -> None:
        """The local APIC's broadcast: level-triggered pins of this vector may ask again."""
        for pin in range(PINS):
            if self._low[pin] & REMOTE_IRR and self._low[pin] & 0xFF == vector:
                self._low[pin] &= ~REMOTE_IRR
                self._serve_level(pin)

    def may_send_nmi(self) -> bool:
        """Whether an entry asks for NMIs."""
        return any(not entry & MASKED and entry >> 8 & 7 == NMI for entry in self._low)

    def read(self, offset: int) -> int:
        """IOREGSEL or what it selects."""
        if offset == SELECT:
            return self._select
        if offset != WINDOW:
            return 0
        if self._select in (ID, ARBITRATION):
            return self._id
        if self._select == VERSION_REGISTER:
            return (PINS - 1) << 16 | VERSION
        pin, is_high = divmod(self._select - TABLE, 2)
        if not 0 <= pin < PINS:
            return 0
        return self._high[pin] if is_high else self._low[pin]

    def write(self, offset: int, value: int) -> None:
        """Select a register or write the selected one."""
        if offset == SELECT:
            self._select = value & 0xFF
        elif offset == WINDOW and self._select == ID:
            self._id = value & 0xF << 24
        elif offset == WINDOW and TABLE <= self._select < TABLE + 2 * PINS:
            self._write_entry(*divmod(self._select - TABLE, 2), value)

    def _write_entry(self, pin: int, is_high: int, value: int) -> None:
        if is_high:
            self._high[pin] = value & HIGH_BITS
            return
        kept = self._low[pin] & REMOTE_IRR if value & LEVEL else 0
        self._low[pin] = value & LOW_BITS | kept
        self._serve_level(pin)

    def check(self) -> None:
        """Assert the module's invariant; raises BrokenInvariantError."""
        for pin, entry in enumerate(self._low):
            if entry & REMOTE_IRR and not entry & LEVEL:
                raise BrokenInvariantError(f"I/O APIC invariant: edge-triggered pin {pin} waits for an end of interrupt")
