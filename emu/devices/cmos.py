"""CMOS memory and the real-time clock behind ports 70 and 71 (Motorola MC146818 data sheet).

The time is the configured start plus virtual time; a guest that sets the clock changes the difference. Between a write of
B_SET and of its absence the registers are memory, so that a date can be set in any order. Bit 7 of port 70, which masks NMI,
is ignored: there is no NMI; so are the divider bits of register A: the crystal always runs.

Invariants (asserted by `check`):

1. IRQ 8 is high, and bit 7 of register C set, just when a flag of register C is up that register B enables.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import ClassVar

from emu.devices.ata_identity import HEADS, MAX_CYLINDERS, SECTORS_A_TRACK
from emu.devices.clock import NEVER, Clock, ticks_at, time_of_tick
from emu.errors import BrokenInvariantError
from emu.units import KIB, MIB

PORTS = range(0x70, 0x72)
BYTES = 128
SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D = range(10, 14)
CENTURY = 0x32
EQUIPMENT, EQUIPMENT_FPU = 0x14, 0x02
DISK_TYPES, DISK_KINDS, DISK_GEOMETRIES = 0x12, (0x19, 0x1A), (0x1B, 0x24)
DISK_TYPES_USED = (0xF0, 0x0F)  # of the first and of the second: its kind is in DISK_KINDS
USER_DEFINED_KIND = 47
DISK_CONTROL = 0xC8  # no retries, more than eight heads
TIME_REGISTERS = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY)
A_UPDATING, A_DEFAULT = 0x80, 0x26  # 32.768 kHz crystal, 1.024 kHz rate
B_SET, B_PERIODIC, B_ALARM, B_UPDATE, B_BINARY, B_24_HOURS = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
C_REQUEST, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
D_VALID = 0x80
AFTERNOON = 0x80  # in the hours, with 12-hour time
ALARM_ANY = 0xC0  # an alarm byte with both bits set matches everything
CRYSTAL_HERTZ = 32_768
UPDATE_TICKS = 8  # of the crystal, 244 us: how long before an update UIP is set
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
LAST_SECOND = 253_402_300_799  # the end of the year 9999


def memory_registers(memory_bytes: int) -> dict[int, int]:
    """How a BIOS describes memory: KiB of base and extended memory, and units of 64 KiB above 16 MiB."""
    extended = min((memory_bytes - MIB) // KIB, 0xFFFF)
    high = min(max(0, memory_bytes - 16 * MIB) // (64 * KIB), 0xFFFF)
    words = {0x15: 640, 0x17: extended, 0x30: extended, 0x34: high}
    return {at + n: word >> 8 * n & 0xFF for at, word in words.items() for n in range(2)}


def disk_registers(disks: Sequence[int]) -> dict[int, int]:
    """How an AT's BIOS describes two drives, of so many sectors: of type 47, which has its geometry behind it."""
    told = {EQUIPMENT: EQUIPMENT_FPU, DISK_TYPES: sum(kind for kind, _ in zip(DISK_TYPES_USED, disks, strict=False))}
    for sectors, kind, place in zip(disks, DISK_KINDS, DISK_GEOMETRIES, strict=False):
        cylinders = min(sectors // (HEADS * SECTORS_A_TRACK), MAX_CYLINDERS)
        low, high = cylinders & 0xFF, cylinders >> 8
        geometry = (
            low,
            high,
            HEADS,
            0xFF,
            0xFF,
            DISK_CONTROL,
            low,
            high,
            SECTORS_A_TRACK,
        )  # no precompensation; landing zone behind the last
        told |= {kind: USER_DEFINED_KIND} | dict(enumerate(geometry, place))
    return told


class Cmos:
    """The chip; `set_irq` drives IRQ 8."""

    WIRING: ClassVar = frozenset({"_clock", "_set_irq"})

    def __init__(
        self,
        clock: Clock,
        insns_per_second: int,
        start_time: int,
        memory_bytes: int,
        set_irq: Callable[[bool], None],
        disks: Sequence[int] = (),
    ) -> None:
        """`disks`: sectors of the drives of the first IDE channel."""
        self._clock = clock
        self._insns_per_second = insns_per_second
        self._offset = start_time  # seconds since 1970 at virtual time 0
        self._set_irq = set_irq
        self._memory = bytearray(BYTES)  # time registers: only while B_SET holds them
        for register, value in (memory_registers(memory_bytes) | disk_registers(disks)).items():
            self._memory[register] = value
        self.reset()

    def reset(self) -> None:
        """Power-on of the processor: the chip has a battery, so time and memory stay; interrupts go off, the clock on."""
        if self._memory[REGISTER_B] & B_SET:
            self._release()
        self._index = 0
        self._memory[REGISTER_A] = A_DEFAULT
        self._memory[REGISTER_B] = B_24_HOURS
        self._memory[REGISTER_C] = 0
        self._seen = self._ticks()  # up to here flags were set
        self._raise(0)
        self._plan()

    def _ticks(self) -> int:
        return ticks_at(self._clock.now(), CRYSTAL_HERTZ, self._insns_per_second)

    def _seconds(self) -> int:
        """Seconds since 1970."""
        return min(max(0, self._offset + self._ticks() // CRYSTAL_HERTZ), LAST_SECOND)

    # ---- time registers ----

    def _encode(self, value: int) -> int:
        return value if self._memory[REGISTER_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, byte: int) -> int:
        return byte if self._memory[REGISTER_B] & B_BINARY else (byte >> 4) * 10 + (byte & 0xF)

    def _hour(self, hour: int) -> int:
        if self._memory[REGISTER_B] & B_24_HOURS:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (AFTERNOON if hour >= 12 else 0)

    def _time(self, register: int) -> int:
        """A time register: what was left or put there while B_SET holds it, else the time."""
        return self._memory[register] if self._memory[REGISTER_B] & B_SET else self._encoded_time()[register]

    def _encoded_time(self) -> dict[int, int]:
        moment = EPOCH + datetime.timedelta(seconds=self._seconds())
        return {
            SECONDS: self._encode(moment.second),
            MINUTES: self._encode(moment.minute),
            HOURS: self._hour(moment.hour),
            WEEKDAY: self._encode(moment.isoweekday() % 7 + 1),
            DAY: self._encode(moment.day),
            MONTH: self._encode(moment.month),
            YEAR: self._encode(moment.year % 100),
            CENTURY: self._encode(moment.year // 100),
        }

    def _hold(self) -> None:
        """Leave the time in the registers as it is now."""
        for register, value in self._encoded_time().items():
            self._memory[register] = value

    def _release(self) -> None:
        """Go on from the time in the registers. What is no date counts on: 31 February is early March."""
        value = {register: self._decode(self._memory[register]) for register in TIME_REGISTERS}
        hour = value[HOURS]
        if not self._memory[REGISTER_B] & B_24_HOURS:
            byte = self._memory[HOURS]
            hour = self._decode(byte & ~AFTERNOON) % 12 + (12 if byte & AFTERNOON else 0)
        year = min(max(value[CENTURY] * 100 + value[YEAR], EPOCH.year), datetime.MAXYEAR)
        month = datetime.datetime(year, min(max(value[MONTH], 1), 12), 1, tzinfo=datetime.UTC)
        days = (month - EPOCH).days + value[DAY] - 1
        seconds = ((days * 24 + hour) * 60 + value[MINUTES]) * 60 + value[SECONDS]
        self._offset = seconds - self._ticks() // CRYSTAL_HERTZ

    def _set_time(self, register: int, byte: int) -> None:
        """Change one part of the time; the day of the week follows from the date."""
        if self._memory[REGISTER_B] & B_SET:
            self._memory[register] = byte
        else:
            self._hold()
            self._memory[register] = byte
            self._release()

    # ---- interrupts ----

    def _periodic_ticks(self) -> int:
        """Ticks between two periodic flags, 0 if off."""
        rate = self._memory[REGISTER_A] & 0xF
        if not rate:
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _next_ticks(self) -> list[int]:
        """The next tick of each thing that may raise an interrupt."""
        upcoming = []
        control = self._memory[REGISTER_B]
        period = self._periodic_ticks()
        if period and control & B_PERIODIC:
            upcoming.append((self._seen // period + 1) * period)
        if control & (B_UPDATE | B_ALARM) and not control & B_SET:
            upcoming.append((self._seen // CRYSTAL_HERTZ + 1) * CRYSTAL_HERTZ)
        return upcoming

    def next_event(self) -> int:
        """Virtual time of the next possible interrupt."""
        return self._due

    def _plan(self) -> None:
        self._due = NEVER
        if self._memory[REGISTER_C] & C_REQUEST or not self._memory[REGISTER_B] & (B_PERIODIC | B_ALARM | B_UPDATE):
            return  # the line is high until register C is read, or cannot rise
        if upcoming := self._next_ticks():
            self._due = time_of_tick(min(upcoming), CRYSTAL_HERTZ, self._insns_per_second)

    def advance(self) -> None:
        """Set the flags of what came due since the last call."""
        now = self._ticks()
        flags = 0
        period = self._periodic_ticks()
        if period and now // period > self._seen // period:
            flags |= C_PERIODIC
        if now // CRYSTAL_HERTZ > self._seen // CRYSTAL_HERTZ and not self._memory[REGISTER_B] & B_SET:
            flags |= C_UPDATE
            seconds = range(self._seen // CRYSTAL_HERTZ + 1, now // CRYSTAL_HERTZ + 1)
            if any(self._is_alarm(second) for second in seconds[:86_400]):
                flags |= C_ALARM
        self._seen = now
        self._raise(flags)
        self._plan()

    def _is_alarm(self, second: int) -> bool:
        moment = EPOCH + datetime.timedelta(seconds=min(max(0, self._offset + second), LAST_SECOND))
        parts = (
            (SECONDS_ALARM, self._encode(moment.second)),
            (MINUTES_ALARM, self._encode(moment.minute)),
            (HOURS_ALARM, self._hour(moment.hour)),
        )
        return all(self._memory[at] & ALARM_ANY == ALARM_ANY or self._memory[at] == value for at, value in parts)

    def _raise(self, flags: int) -> None:
        """Set flags of register C and drive the line."""
        self._memory[REGISTER_C] = (self._memory[REGISTER_C] | flags) & ~C_REQUEST
        self._is_high = self._asks()
        if self._is_high:
            self._memory[REGISTER_C] |= C_REQUEST
        self._set_irq(self._is_high)

    def _asks(self) -> bool:
        return bool(self._memory[REGISTER_C] & self._memory[REGISTER_B] & (B_PERIODIC | B_ALARM | B_UPDATE))

    # ---- ports ----

    def read(self, port: int, _size: int) -> int:
        """IN."""
        if port == PORTS[0]:
            return 0xFF
        register = self._index
        if register in TIME_REGISTERS:
            return self._time(register)
        if register == REGISTER_A:
            return self._memory[REGISTER_A] | (A_UPDATING if self._is_updating() else 0)
        if register == REGISTER_C:
            return self._acknowledge()
        return D_VALID if register == REGISTER_D else self._memory[register]

    def _is_updating(self) -> bool:
        return not self._memory[REGISTER_B] & B_SET and self._ticks() % CRYSTAL_HERTZ >= CRYSTAL_HERTZ - UPDATE_TICKS

    def _acknowledge(self) -> int:
        self.advance()
        flags = self._memory[REGISTER_C]
        self._memory[REGISTER_C] = 0
        self._raise(0)
        self._plan()
        return flags

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        if port == PORTS[0]:
            self._index = value & (BYTES - 1)
        elif self._index in TIME_REGISTERS:
            self._set_time(self._index, value)
        elif self._index == REGISTER_A:
            self.advance()
            self._memory[REGISTER_A] = value & ~A_UPDATING
        elif self._index == REGISTER_B:
            self._set_control(value)
        elif self._index not in (REGISTER_C, REGISTER_D):
            self._memory[self._index] = value
        self._plan()

    def _set_control(self, value: int) -> None:
        self.advance()
        before = self._memory[REGISTER_B]
        if value & ~before & B_SET:
            self._hold()
        self._memory[REGISTER_B] = value
        if before & ~value & B_SET:
            self._release()
        self._raise(0)

    def check(self) -> None:
        """Assert the module's invariant; raises BrokenInvariantError."""
        if not self._is_high == self._asks() == bool(self._memory[REGISTER_C] & C_REQUEST):
            raise BrokenInvariantError("MC146818 invariant 1: IRQ 8 does not follow registers B and C")
