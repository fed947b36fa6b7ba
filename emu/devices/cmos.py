"""CMOS memory and the real-time clock behind ports 70 and 71 (Motorola MC146818 data sheet).

The time is the configured start plus virtual time; a guest that sets the clock changes the difference. Bit 7 of port 70,
which masks NMI, is ignored: there is no NMI.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from emu.devices.clock import NEVER, Clock, ticks_at, time_of_tick
from emu.units import KIB, MIB

PORTS = range(0x70, 0x72)
BYTES = 128
SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D = range(10, 14)
CENTURY = 0x32
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


class Cmos:
    """The chip; `set_irq` drives IRQ 8."""

    def __init__(
        self, clock: Clock, insns_per_second: int, start_time: int, memory_bytes: int, set_irq: Callable[[bool], None]
    ) -> None:
        self._clock = clock
        self._insns_per_second = insns_per_second
        self._offset = start_time  # seconds since 1970 at virtual time 0
        self._frozen: int | None = None  # the time while B_SET holds it
        self._set_irq = set_irq
        self._memory = bytearray(BYTES)
        for register, value in memory_registers(memory_bytes).items():
            self._memory[register] = value
        self.reset()

    def reset(self) -> None:
        """Power-on of the processor: the chip has a battery, so time and memory stay; interrupts go off."""
        self._index = 0
        self._memory[REGISTER_A] = A_DEFAULT
        self._memory[REGISTER_B] = B_24_HOURS
        self._memory[REGISTER_C] = 0
        self._seen = self._ticks()
        self._set_irq(False)

    def _ticks(self) -> int:
        return ticks_at(self._clock.now(), CRYSTAL_HERTZ, self._insns_per_second)

    def _seconds(self) -> int:
        """Seconds since 1970."""
        if self._frozen is not None:
            return self._frozen
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
        moment = EPOCH + datetime.timedelta(seconds=self._seconds())
        if register == HOURS:
            return self._hour(moment.hour)
        values = {
            SECONDS: moment.second,
            MINUTES: moment.minute,
            WEEKDAY: moment.isoweekday() % 7 + 1,
            DAY: moment.day,
            MONTH: moment.month,
            YEAR: moment.year % 100,
            CENTURY: moment.year // 100,
        }
        return self._encode(values[register])

    def _set_time(self, register: int, byte: int) -> None:
        """Change one part of the time; what is no date is ignored."""
        moment = EPOCH + datetime.timedelta(seconds=self._seconds())
        value = self._decode(byte)
        if register == HOURS and not self._memory[REGISTER_B] & B_24_HOURS:
            value = self._decode(byte & ~AFTERNOON) % 12 + (12 if byte & AFTERNOON else 0)
        names = {SECONDS: "second", MINUTES: "minute", HOURS: "hour", DAY: "day", MONTH: "month"}
        try:
            if register == YEAR:
                changed = moment.replace(year=moment.year // 100 * 100 + value)
            elif register == CENTURY:
                changed = moment.replace(year=value * 100 + moment.year % 100)
            elif register in names:
                changed = moment.replace(**{names[register]: value})  # type: ignore[arg-type]
            else:
                return  # the day of the week follows from the date
        except ValueError:
            return
        self._move_to(int((changed - EPOCH).total_seconds()))

    def _move_to(self, seconds: int) -> None:
        if self._frozen is not None:
            self._frozen = max(0, seconds)
        else:
            self._offset += seconds - self._seconds()

    # ---- interrupts ----

    def _periodic_ticks(self) -> int:
        """Ticks between two periodic interrupts, 0 if off."""
        rate = self._memory[REGISTER_A] & 0xF
        if not rate or not self._memory[REGISTER_B] & B_PERIODIC:
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _next_ticks(self) -> list[int]:
        """The next tick of each thing that may raise an interrupt."""
        upcoming = []
        period = self._periodic_ticks()
        if period:
            upcoming.append((self._seen // period + 1) * period)
        control = self._memory[REGISTER_B]
        if control & (B_UPDATE | B_ALARM) and not control & B_SET:
            upcoming.append((self._seen // CRYSTAL_HERTZ + 1) * CRYSTAL_HERTZ)
        return upcoming

    def next_event(self) -> int:
        """Virtual time of the next possible interrupt."""
        if self._memory[REGISTER_C] & C_REQUEST:
            return NEVER  # the line is high until register C is read
        upcoming = self._next_ticks()
        return time_of_tick(min(upcoming), CRYSTAL_HERTZ, self._insns_per_second) if upcoming else NEVER

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
            if self._memory[REGISTER_B] & B_ALARM and any(self._is_alarm(second) for second in seconds[:86_400]):
                flags |= C_ALARM
        self._seen = now
        self._raise(flags)

    def _is_alarm(self, second: int) -> bool:
        moment = EPOCH + datetime.timedelta(seconds=min(max(0, self._offset + second), LAST_SECOND))
        parts = (
            (SECONDS_ALARM, self._encode(moment.second)),
            (MINUTES_ALARM, self._encode(moment.minute)),
            (HOURS_ALARM, self._hour(moment.hour)),
        )
        return all(self._memory[at] & ALARM_ANY == ALARM_ANY or self._memory[at] == value for at, value in parts)

    def _raise(self, flags: int) -> None:
        enabled = self._memory[REGISTER_B] & (B_PERIODIC | B_ALARM | B_UPDATE)
        self._memory[REGISTER_C] |= flags
        if self._memory[REGISTER_C] & enabled:
            self._memory[REGISTER_C] |= C_REQUEST
            self._set_irq(True)

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
        return self._frozen is None and self._ticks() % CRYSTAL_HERTZ >= CRYSTAL_HERTZ - UPDATE_TICKS

    def _acknowledge(self) -> int:
        self.advance()
        flags = self._memory[REGISTER_C]
        self._memory[REGISTER_C] = 0
        self._set_irq(False)
        return flags

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        if port == PORTS[0]:
            self._index = value & (BYTES - 1)
        elif self._index in TIME_REGISTERS:
            self._set_time(self._index, value)
        elif self._index == REGISTER_A:
            self._memory[REGISTER_A] = value & ~A_UPDATING
        elif self._index == REGISTER_B:
            self._set_control(value)
        elif self._index not in (REGISTER_C, REGISTER_D):
            self._memory[self._index] = value

    def _set_control(self, value: int) -> None:
        self.advance()
        if value & B_SET and self._frozen is None:
            self._frozen = self._seconds()
        elif not value & B_SET and self._frozen is not None:
            seconds, self._frozen = self._frozen, None
            self._move_to(seconds)
        self._memory[REGISTER_B] = value
        self._raise(0)
