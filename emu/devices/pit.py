"""The 8254 timer: three counters at 1.193182 MHz, the first on IRQ 0, the third gated by port 61 (Intel 8254 data sheet).

A counter is a function of virtual time, so nothing has to run between two looks at it. Simplified: the one clock between a
write of the count and its loading is left out, as is the one between a trigger and what it starts; in mode 3 a new count
waits for the end of the whole period, not of its half; BCD counts are converted when written and read.

Invariants (asserted by `check`):

1. A running counter has a count from 1 to 65536 and started no later than now.
2. Only a low gate holds a counter, and never in the modes that a gate triggers.
3. A count waits for the end of a period only in the modes that have periods.
4. The line to IRQ 0 has the level of OUT 0 as of the last `advance`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from emu.devices.clock import NEVER, Clock, ticks_at, time_of_tick
from emu.errors import BrokenInvariantError

HERTZ = 1_193_182
REFRESH_HERTZ = 66_287  # of the bit in port 61 that shows memory refresh: it toggles every 15.085 us
PORT_COMMAND, PORT_GATE = 0x43, 0x61
LATCH, LOW_BYTE, HIGH_BYTE, BOTH_BYTES = 0, 1, 2, 3
READ_BACK = 3
TRIGGERED_MODES, PERIODIC_MODES = (1, 5), (2, 3)
SHORTEST_PERIOD = 2  # the data sheet forbids a count of 1 in the periodic modes; it counts as this
GATE_2, SPEAKER, REFRESH, OUTPUT_2 = 0x01, 0x02, 0x10, 0x20


def from_bcd(value: int) -> int:
    """Four decimal digits as a number; a digit above 9 counts as what it is."""
    return sum((value >> 4 * place & 0xF) * 10**place for place in range(4))


def to_bcd(value: int) -> int:
    """A number below 10,000 as four decimal digits."""
    return sum(value // 10**place % 10 << 4 * place for place in range(4))


class Counter:
    """One of the three; times are ticks of the 8254's clock."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.gate = True
        self.set_mode(BOTH_BYTES, 3, bcd=False)

    def set_mode(self, access: int, mode: int, bcd: bool) -> None:
        """A control word for this counter: it stops until a count is written."""
        self._access, self._bcd = access, bcd
        self.mode = mode if mode < 6 else mode - 4
        self._written = 0  # the count as last written, 1 to 65536; 0: none since the mode was set
        self._count = 0  # the count that OUT follows; 0: none yet
        self._start = 0  # tick at which `_count` was loaded
        self._held: int | None = None  # ticks that had passed since the load when a low gate stopped the counter
        self._switch: int | None = None  # tick at which a period ends and `_written` takes over
        self._low_byte: int | None = None  # of a count whose high byte is due
        self._reads_high = False  # the next byte read is the high one
        self._latched_count: int | None = None
        self._latched_status: int | None = None

    # ---- the waveform ----

    def _settle(self, tick: int) -> None:
        """Let a count written during an earlier period take over."""
        if self._switch is not None and tick >= self._switch:
            self._start, self._count, self._switch = self._switch, self._written, None

    def _begin(self, tick: int) -> None:
        """Load the written count."""
        self._start, self._count, self._switch = tick, self._written, None
        self._held = 0 if not self.gate and self.mode not in TRIGGERED_MODES else None

    def _elapsed(self, tick: int) -> int:
        return tick - self._start if self._held is None else self._held

    def _low_ticks(self) -> tuple[int, int]:
        """From which tick after the load, and until which, OUT is low; in the periodic modes, of each period."""
        count = self._count
        spans = {0: (0, count), 1: (0, count), 2: (count - 1, count), 3: ((count + 1) // 2, count)}
        return spans.get(self.mode, (count, count + 1))

    def output(self, tick: int) -> bool:
        """The level of OUT."""
        self._settle(tick)
        if not self._count:
            return self.mode != 0
        elapsed = self._elapsed(tick)
        if self.mode in PERIODIC_MODES:
            if self._held is not None:
                return True
            elapsed %= self._count
        start, end = self._low_ticks()
        return not start <= elapsed < end

    def next_rise(self, after: int) -> int:
        """The first tick later than `after` at which OUT goes from low to high; NEVER if it does not."""
        self._settle(after)
        if not self._count or self._held is not None:
            return NEVER
        start, end = self._low_ticks()
        if self.mode in PERIODIC_MODES:
            is_constant = start in (0, end)  # a count of 1, which the data sheet forbids
            return NEVER if is_constant else self._period_end(after)
        rise = self._start + end
        return rise if rise > after else NEVER

    def _period_end(self, after: int) -> int:
        return self._start + ((after - self._start) // self._count + 1) * self._count

    # ---- what drives it ----

    def write(self, byte: int, tick: int) -> None:
        """A byte of a new count."""
        self._settle(tick)
        if self._access == BOTH_BYTES and self._low_byte is None:
            self._low_byte = byte
            if self.mode == 0:
                self._count = 0
            return
        raw = byte << 8 if self._access == HIGH_BYTE else byte
        if self._low_byte is not None:
            raw, self._low_byte = self._low_byte | byte << 8, None
        count = from_bcd(raw) or 10_000 if self._bcd else raw or 0x1_0000
        self._written = max(count, SHORTEST_PERIOD) if self.mode in PERIODIC_MODES else count
        self._take_over(tick)

    def _take_over(self, tick: int) -> None:
        """Let the written count have effect when its mode says so."""
        if self.mode in TRIGGERED_MODES:
            return
        if self.mode not in PERIODIC_MODES or not self._count:
            self._begin(tick)
        elif self._held is None:
            self._switch = self._period_end(tick)

    def set_gate(self, gate: bool, tick: int) -> None:
        """Drive GATE: a rising edge triggers, restarts or goes on, a low level stops."""
        if gate == self.gate:
            return
        self._settle(tick)
        self.gate = gate
        if self.mode in TRIGGERED_MODES:
            if gate and self._written:
                self._begin(tick)
        elif not self._count:
            return
        elif not gate:
            self._held = tick - self._start
        elif self.mode in PERIODIC_MODES:
            self._begin(tick)
        else:
            self._start, self._held = tick - self._elapsed(tick), None

    # ---- what is read from it ----

    def value(self, tick: int) -> int:
        """The count, 16 bits."""
        self._settle(tick)
        if not self._count:
            return 0
        left = self._ticks_left(self._elapsed(tick))
        return to_bcd(left % 10_000) if self._bcd else left & 0xFFFF

    def _ticks_left(self, elapsed: int) -> int:
        if self.mode == 2:
            return self._count - elapsed % self._count
        if self.mode == 3:  # counts an even number down by two, once for each half period
            return (self._count & ~1) - 2 * (elapsed % self._count % ((self._count + 1) // 2))
        return self._count - elapsed

    def latch_count(self, tick: int) -> None:
        """Hold the count for reading, unless one is held already."""
        if self._latched_count is None:
            self._latched_count = self.value(tick)

    def latch_status(self, tick: int) -> None:
        """Hold the status byte for reading before the count, unless one is held already."""
        if self._latched_status is None:
            output = self.output(tick)
            null_count = not self._count or self._count != self._written or self._switch is not None
            self._latched_status = output << 7 | null_count << 6 | self._access << 4 | self.mode << 1 | self._bcd

    def read(self, tick: int) -> int:
        """The next byte."""
        if self._latched_status is not None:
            status, self._latched_status = self._latched_status, None
            return status
        value = self.value(tick) if self._latched_count is None else self._latched_count
        is_high = self._reads_high if self._access == BOTH_BYTES else self._access == HIGH_BYTE
        if self._access == BOTH_BYTES:
            self._reads_high = not self._reads_high
        if is_high or self._access != BOTH_BYTES:
            self._latched_count = None
        return value >> 8 if is_high else value & 0xFF

    def check(self, tick: int) -> None:
        """Assert the module's invariants."""
        self._settle(tick)
        if not 0 <= self._count <= 0x1_0000 or (self._count and self._start > tick):
            raise BrokenInvariantError(f"8254 invariant 1: count {self._count} started at tick {self._start}, now {tick}")
        if self._held is not None and (self.gate or self.mode in TRIGGERED_MODES):
            raise BrokenInvariantError(f"8254 invariant 2: held in mode {self.mode} with gate {self.gate}")
        if self._switch is not None and self.mode not in PERIODIC_MODES:
            raise BrokenInvariantError(f"8254 invariant 3: a period of mode {self.mode} is to end")


class Pit:
    """The 8254 and port 61. `set_irq` drives the timer's line."""

    WIRING: ClassVar = frozenset({"_clock", "_set_irq"})

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
        self._seen = self._tick()  # up to here OUT 0 was passed on
        self._edge = NEVER  # the tick at which OUT 0 rises next
        self._drive()

    def _tick(self) -> int:
        return ticks_at(self._clock.now(), HERTZ, self._insns_per_second)

    def next_event(self) -> int:
        """Virtual time of the next rising edge on IRQ 0."""
        return self._due

    def advance(self) -> None:
        """Pass on what OUT 0 did since the last call; several edges merge into one, as in the 8259's edge latch."""
        tick = self._tick()
        if self._edge <= tick:
            self._set_irq(False)
            self._set_irq(True)
        self._seen = tick
        self._drive()

    def _drive(self) -> None:
        self._level = self.counters[0].output(self._seen)
        self._set_irq(self._level)
        self._edge = self.counters[0].next_rise(self._seen)
        self._due = NEVER if self._edge >= NEVER else time_of_tick(self._edge, HERTZ, self._insns_per_second)

    def read(self, port: int, _size: int) -> int:
        """IN."""
        self.advance()
        tick = self._seen
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
        tick = self._seen
        if port == PORT_GATE:
            self.counters[2].set_gate(bool(value & GATE_2), tick)
            self._speaker = value & SPEAKER
        elif port == PORT_COMMAND:
            self._command(value, tick)
        else:
            self.counters[port & 3].write(value, tick)
        self._drive()

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
        """Assert the module's invariants; raises BrokenInvariantError."""
        for counter in self.counters:
            counter.check(self._seen)
        if self._level != self.counters[0].output(self._seen):
            raise BrokenInvariantError("8254 invariant 4: IRQ 0 does not follow OUT 0")
