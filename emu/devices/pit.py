"""The 8254 timer: three counters at 1.193182 MHz, the first on IRQ 0, the third gated by port 61 (Intel 8254 data sheet).

A counter is a function of virtual time, so nothing has to run between two looks at it. Simplified: the one clock between a
write of the count and its loading is left out; in mode 3 a read gives the count of the half period under way; BCD counts
are converted when written and read.

Invariant (asserted by `check`): a running counter has a count from 1 to 65536 and started no later than now.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.clock import NEVER, Clock, ticks_at, time_of_tick
from emu.errors import BrokenInvariantError

HERTZ = 1_193_182
REFRESH_HERTZ = 66_287  # of the bit in port 61 that shows memory refresh: it toggles every 15.085 us
PORT_COMMAND, PORT_GATE = 0x43, 0x61
LATCH, LOW_BYTE, HIGH_BYTE, BOTH_BYTES = 0, 1, 2, 3
READ_BACK = 3
GATE_2, SPEAKER, REFRESH, OUTPUT_2 = 0x01, 0x02, 0x10, 0x20


def from_bcd(value: int) -> int:
    """Four decimal digits as a number; a digit above 9 counts as what it is."""
    return sum((value >> 4 * place & 0xF) * 10**place for place in range(4))


def to_bcd(value: int) -> int:
    """A number below 10,000 as four decimal digits."""
    return sum(value // 10**place % 10 << 4 * place for place in range(4))


class Counter:
    """One of the three; times are ticks of the 8254's clock."""

    def __init__(self) -> None:
        self.mode = 3
        self._bcd = False
        self._access = BOTH_BYTES
        self._count = 0  # 1 to 65536; 0: none written since the mode was set
        self._start = 0  # tick at which `_count` was loaded
        self._next_count = 0  # takes over at the end of the period (modes 2 and 3)
        self._low_byte: int | None = None  # of a count whose high byte is due
        self._latched: list[int] = []  # bytes of latched status and count, in reading order
        self._reads_high = False
        self._is_triggered = False  # modes 1 and 5
        self.gate = True

    def _period_ends(self, tick: int) -> None:
        """Let a count written meanwhile take over."""
        if self._next_count:
            end = self._start + -(-(tick - self._start) // self._count) * self._count
            end = max(end, self._start + self._count)
            if tick >= end:
                self._start, self._count, self._next_count = end, self._next_count, 0

    @property
    def _is_running(self) -> bool:
        return self._count > 0 and (self._is_triggered if self.mode in (1, 5) else self.gate)

    def output(self, tick: int) -> bool:
        """The level of OUT."""
        self._period_ends(tick)
        elapsed = tick - self._start
        if not self._is_running:
            return self.mode != 0
        if self.mode in (0, 1):
            return elapsed >= self._count
        if self.mode == 2:
            return elapsed % self._count != self._count - 1
        if self.mode == 3:
            return elapsed % self._count < (self._count + 1) // 2
        return elapsed != self._count

    def next_rise(self, after: int) -> int:
        """The first tick later than `after` at which OUT goes from low to high; NEVER if it does not."""
        self._period_ends(after)
        if not self._is_running:
            return NEVER
        if self.mode in (2, 3):
            return self._start + ((after - self._start) // self._count + 1) * self._count
        rise = self._start + self._count + (1 if self.mode in (4, 5) else 0)
        return rise if rise > after else NEVER

    def value(self, tick: int) -> int:
        """The count, 16 bits."""
        self._period_ends(tick)
        elapsed = tick - self._start if self._is_running else 0
        if not self._count:
            return 0
        if self.mode == 2:
            left = self._count - elapsed % self._count
        elif self.mode == 3:
            left = self._count - 2 * elapsed % self._count
        else:
            left = self._count - elapsed
        return to_bcd(left % 10_000) if self._bcd else left & 0xFFFF

    def set_mode(self, access: int, mode: int, bcd: bool) -> None:
        """A control word for this counter."""
        self._access, self.mode, self._bcd = access, mode if mode < 6 else mode - 4, bcd
        self._count = self._next_count = 0
        self._low_byte, self._reads_high, self._is_triggered = None, False, False
        self._latched = []

    def write(self, byte: int, tick: int) -> None:
        """A byte of a new count."""
        if self._access == BOTH_BYTES and self._low_byte is None:
            self._low_byte = byte
            return
        if self._access == BOTH_BYTES:
            raw = (self._low_byte or 0) | byte << 8
            self._low_byte = None
        else:
            raw = byte << 8 if self._access == HIGH_BYTE else byte
        self._load(from_bcd(raw) or 10_000 if self._bcd else raw or 0x1_0000, tick)

    def _load(self, count: int, tick: int) -> None:
        self._period_ends(tick)
        if self.mode in (2, 3) and self._count and self.gate:
            self._next_count = count
        else:
            self._count, self._start = count, tick

    def set_gate(self, gate: bool, tick: int) -> None:
        """Drive GATE; a rising edge triggers or restarts."""
        if gate and not self.gate and self.mode not in (0, 4):
            self._start, self._is_triggered = tick, True
        self.gate = gate

    def latch_count(self, tick: int) -> None:
        """Hold the count for reading, unless one is held already."""
        if not self._latched:
            value = self.value(tick)
            both = [value & 0xFF, value >> 8]
            self._latched = {LOW_BYTE: both[:1], HIGH_BYTE: both[1:]}.get(self._access, both)

    def latch_status(self, tick: int) -> None:
        """Hold the status byte for reading, before a held count."""
        null_count = not self._count or self._next_count
        status = self.output(tick) << 7 | bool(null_count) << 6 | self._access << 4 | self.mode << 1 | self._bcd
        self._latched.insert(0, status)

    def read(self, tick: int) -> int:
        """The next byte."""
        if self._latched:
            return self._latched.pop(0)
        value = self.value(tick)
        if self._access == BOTH_BYTES:
            self._reads_high = not self._reads_high
            return value & 0xFF if self._reads_high else value >> 8
        return value >> 8 if self._access == HIGH_BYTE else value & 0xFF

    def check(self, tick: int) -> None:
        """Assert the module's invariant."""
        if not 0 <= self._count <= 0x1_0000 or self._start > tick:
            raise BrokenInvariantError(f"8254: count {self._count} started at tick {self._start}, now {tick}")


class Pit:
    """The 8254 and port 61. `set_irq` drives the timer's line."""

    PORTS = (range(0x40, 0x44), range(PORT_GATE, PORT_GATE + 1))

    def __init__(self, clock: Clock, insns_per_second: int, set_irq: Callable[[bool], None]) -> None:
        self._clock = clock
        self._insns_per_second = insns_per_second
        self._set_irq = set_irq
        self.reset()

    def reset(self) -> None:
        """Power-on state: nothing runs until it is programmed."""
        self.counters = [Counter() for _ in range(3)]
        self.counters[2].gate = False
        self._speaker = 0
        self._seen = self._tick()  # up to here rising edges of OUT 0 were passed on
        self._set_irq(False)

    def _tick(self) -> int:
        return ticks_at(self._clock.now(), HERTZ, self._insns_per_second)

    def next_event(self) -> int:
        """Virtual time of the next rising edge on IRQ 0."""
        edge = self.counters[0].next_rise(self._seen)
        return NEVER if edge >= NEVER else time_of_tick(edge, HERTZ, self._insns_per_second)

    def advance(self) -> None:
        """Pass on what OUT 0 did since the last call; several edges merge into one, as in the 8259's edge latch."""
        tick = self._tick()
        counter = self.counters[0]
        if counter.next_rise(self._seen) <= tick:
            self._set_irq(False)
            self._set_irq(True)
        self._seen = tick
        self._set_irq(counter.output(tick))

    def read(self, port: int, _size: int) -> int:
        """IN."""
        tick = self._tick()
        if port == PORT_GATE:
            refresh = ticks_at(self._clock.now(), REFRESH_HERTZ, self._insns_per_second) & 1
            output = self.counters[2].output(tick)
            return self.counters[2].gate * GATE_2 | self._speaker | refresh * REFRESH | output * OUTPUT_2
        if port == PORT_COMMAND:
            return 0xFF
        return self.counters[port & 3].read(tick)

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        self.advance()
        tick = self._tick()
        if port == PORT_GATE:
            self.counters[2].set_gate(bool(value & GATE_2), tick)
            self._speaker = value & SPEAKER
        elif port == PORT_COMMAND:
            self._command(value, tick)
        else:
            self.counters[port & 3].write(value, tick)
        self._set_irq(self.counters[0].output(tick))

    def _command(self, value: int, tick: int) -> None:
        select, access = value >> 6, value >> 4 & 3
        if select == READ_BACK:
            for number, counter in enumerate(self.counters):
                if value >> (number + 1) & 1:
                    if not value & 0x20:
                        counter.latch_count(tick)
                    if not value & 0x10:
                        counter.latch_status(tick)
        elif access == LATCH:
            self.counters[select].latch_count(tick)
        else:
            self.counters[select].set_mode(access, value >> 1 & 7, bool(value & 1))

    def check(self) -> None:
        """Assert the invariant of each counter."""
        for counter in self.counters:
            counter.check(self._tick())
