"""The local APIC of the only processor (Intel SDM vol. 3, ch. 10; AMD64 APM vol. 2, ch. 16). Its timer ticks in virtual time.

After power-on it is software-disabled and the 8259's interrupts pass through it. The bus to other processors is not there:
what is sent to anyone else is gone, and INIT and start-up messages to this processor are ignored. LINT0, where the
8259 is, works in the modes ExtINT and NMI; nothing is wired to LINT1.

Invariants (asserted by `check`):

1. No vector below 16 is requested or in service.
2. The timer runs only with an initial count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from emu.devices.clock import NEVER, Clock
from emu.devices.ports import floating
from emu.errors import BrokenInvariantError

ADDRESS = 0xFEE0_0000
ADDRESSES = range(ADDRESS, ADDRESS + 0x1000)
VERSION = 0x14  # an integrated one
BASE_BSP, BASE_ENABLE = 1 << 8, 1 << 11  # in MSR 1B
ID, VERSION_REGISTER, TPR, APR, PPR, EOI = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0
LDR, DFR, SVR, ISR, TMR, IRR, ESR = 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280
ICR_LOW, ICR_HIGH, INITIAL, CURRENT, DIVIDE = 0x300, 0x310, 0x380, 0x390, 0x3E0
LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR = range(0x320, 0x380, 0x10)
LVT_BITS = {  # that can be written
    LVT_TIMER: 0x3_00FF,
    LVT_THERMAL: 0x1_07FF,
    LVT_PERFORMANCE: 0x1_07FF,
    LVT_LINT0: 0x1_A7FF,
    LVT_LINT1: 0x1_A7FF,
    LVT_ERROR: 0x1_00FF,
}
LVT_MASKED, LVT_PERIODIC = 1 << 16, 1 << 17
SVR_ENABLE, SVR_BITS = 1 << 8, 0x3FF
FIXED, LOWEST_PRIORITY, NMI, EXTINT = 0, 1, 4, 7  # delivery modes
MODE_SHIFT, MODE_MASK = 8, 7 << 8  # of LVT entries
ICR_BITS, ICR_LOGICAL = 0xC_CFFF, 1 << 11
NO_SHORTHAND, TO_SELF, TO_ALL = 0, 1, 2
SEND_ILLEGAL, RECEIVE_ILLEGAL, ILLEGAL_REGISTER = 1 << 5, 1 << 6, 1 << 7  # in ESR
FIRST_VECTOR = 16
BROADCAST, FLAT = 0xFF, 0xF


class LocalApic:
    """The APIC; `on_end_of_interrupt`, if set, gets the vectors of level-triggered interrupts that were served."""

    WIRING: ClassVar = frozenset({"_clock", "on_end_of_interrupt"})

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_end_of_interrupt: Callable[[int], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Power-on state: enabled in MSR 1B, disabled by software, everything masked."""
        self.base = ADDRESS | BASE_ENABLE | BASE_BSP
        self._clear()

    def _clear(self) -> None:
        self._irr = self._isr = self._tmr = 0  # bit n is vector n
        self._lvt = dict.fromkeys(LVT_BITS, LVT_MASKED)
        self._kept = {ID: 0, TPR: 0, LDR: 0, DFR: floating(4), SVR: 0xFF, ICR_LOW: 0, ICR_HIGH: 0, INITIAL: 0, DIVIDE: 0}
        self._expiry = NEVER  # virtual time at which the timer reaches 0
        self._errors = self._shown_errors = 0
        self._nmi = False

    # ---- the processor's side ----

    def write_base(self, value: int) -> bool:
        """Write MSR 1B; false where the processor raises #GP. Disabling loses the APIC's state."""
        if value & ~(BASE_ENABLE | BASE_BSP) != ADDRESS:
            return False
        self.base = value | BASE_BSP
        if not self.is_enabled:
            self._clear()
        return True

    @property
    def is_enabled(self) -> bool:
        """Whether MSR 1B has it on."""
        return bool(self.base & BASE_ENABLE)

    @property
    def _is_active(self) -> bool:
        return self.is_enabled and bool(self._kept[SVR] & SVR_ENABLE)

    @property
    def passes_pic(self) -> bool:
        """Whether the 8259's requests reach the processor."""
        return not self._is_active or self._lvt[LVT_LINT0] & (LVT_MASKED | MODE_MASK) == EXTINT << MODE_SHIFT

    @property
    def task_priority(self) -> int:
        """The priority class that CR8 shows, 0 to 15."""
        return self._kept[TPR] >> 4

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        self._kept[TPR] = (value & 0xF) << 4

    def has_interrupt(self) -> bool:
        """Whether a request is of a higher class than what the processor does."""
        return bool(self._irr) and self._is_active and _highest(self._irr) >> 4 > self._processor_priority() >> 4

    def acknowledge(self) -> int:
        """The vector to deliver, now in service; the spurious one if there is no request any more."""
        self.advance()
        if not self.has_interrupt():
            return self._kept[SVR] & 0xFF
        vector = _highest(self._irr)
        self._irr &= ~(1 << vector)
        self._isr |= 1 << vector
        return vector

    @property
    def has_nmi(self) -> bool:
        """Whether an NMI was sent that the processor did not take yet: there is never more than one."""
        return self._nmi

    def take_nmi(self) -> None:
        """The processor takes it."""
        self._nmi = False

    @property
    def makes_nmi_of_pic(self) -> bool:
        """Whether each request of the 8259 is an NMI."""
        return self._is_active and self._lvt[LVT_LINT0] & (LVT_MASKED | MODE_MASK) == NMI << MODE_SHIFT

    def pic_requests(self) -> None:
        """The 8259's output, which is at LINT0, has risen."""
        if self.makes_nmi_of_pic:
            self._nmi = True

    def _processor_priority(self) -> int:
        task, served = self._kept[TPR], _highest(self._isr)
        return task if task >> 4 >= served >> 4 else served & 0xF0

    # ---- messages ----

    def accept(self, destination: int, mode: int, vector: int, *, logical: bool, level: bool = False) -> bool:
        """A message on the bus; whether this APIC took it."""
        if not self.is_enabled or not self._is_addressed(destination, logical=logical):
            return False
        return self._take(mode, vector, level=level)

    def _is_addressed(self, destination: int, *, logical: bool) -> bool:
        if not logical:
            return destination in (self._kept[ID] >> 24, BROADCAST)
        own = self._kept[LDR] >> 24
        if self._kept[DFR] >> 28 == FLAT:
            return bool(destination & own)
        return destination >> 4 in (own >> 4, 0xF) and bool(destination & own & 0xF)

    def _take(self, mode: int, vector: int, *, level: bool = False) -> bool:
        if mode == NMI:
            self._nmi = True
        elif mode not in (FIXED, LOWEST_PRIORITY) or not self._is_active:
            return False
        elif vector < FIRST_VECTOR:
            self._fail(RECEIVE_ILLEGAL)
            return False
        else:
            self._request(vector, level=level)
        return True

    def _request(self, vector: int, *, level: bool = False) -> None:
        bit = 1 << vector
        self._irr |= bit
        self._tmr = self._tmr | bit if level else self._tmr & ~bit

    def _fail(self, error: int) -> None:
        is_new = not self._errors & error
        self._errors |= error
        entry = self._lvt[LVT_ERROR]
        if is_new and self._is_active and not entry & LVT_MASKED and entry & 0xFF >= FIRST_VECTOR:
            self._request(entry & 0xFF)

    def _send(self, command: int) -> None:
        mode, vector, shorthand = command >> 8 & 7, command & 0xFF, command >> 18
        if mode in (FIXED, LOWEST_PRIORITY) and vector < FIRST_VECTOR:
            self._fail(SEND_ILLEGAL)
        elif shorthand in (TO_SELF, TO_ALL):
            self._take(mode, vector)
        elif shorthand == NO_SHORTHAND:
            self.accept(self._kept[ICR_HIGH] >> 24, mode, vector, logical=bool(command & ICR_LOGICAL))

    # ---- timer ----

    def next_event(self) -> int:
        """Virtual time at which the timer makes its next request; expiries merge with one that still waits."""
        entry = self._lvt[LVT_TIMER]
        if entry & LVT_MASKED or self._irr >> (entry & 0xFF) & 1:
            return NEVER
        return self._expiry

    def advance(self) -> None:
        """Make the request of a timer that expired."""
        now = self._clock.now()
        if now < self._expiry:
            return
        entry = self._lvt[LVT_TIMER]
        period = self._kept[INITIAL] * self._divisor()
        self._expiry += period * (1 + (now - self._expiry) // period) if entry & LVT_PERIODIC else NEVER
        self._expiry = min(self._expiry, NEVER)
        if entry & LVT_MASKED:
            return
        if entry & 0xFF < FIRST_VECTOR:
            self._fail(RECEIVE_ILLEGAL)
        else:
            self._request(entry & 0xFF)

    def _divisor(self) -> int:
        code = self._kept[DIVIDE] & 3 | self._kept[DIVIDE] >> 1 & 4
        return 1 << (code + 1) % 8

    def _count(self) -> int:
        return 0 if self._expiry == NEVER else -((self._clock.now() - self._expiry) // self._divisor())

    def _start(self, count: int) -> None:
        self._expiry = self._clock.now() + count * self._divisor() if count else NEVER

    # ---- registers ----

    def read(self, offset: int) -> int:
        """A register; reserved ones are 0."""
        if not self.is_enabled:
            return floating(4)
        self.advance()
        for first, bits in ((ISR, self._isr), (TMR, self._tmr), (IRR, self._irr)):
            if first <= offset < first + 0x80:
                return bits >> 2 * (offset - first) & floating(4) if offset % 16 == 0 else 0
        if offset in self._lvt:
            return self._lvt[offset]
        if offset in self._kept:
            return self._kept[offset]
        return self._read_derived(offset)

    def _read_derived(self, offset: int) -> int:
        if offset == VERSION_REGISTER:
            return (len(LVT_BITS) - 1) << 16 | VERSION
        if offset == PPR:
            return self._processor_priority()
        if offset == APR:
            return max(self._kept[TPR], _highest(self._irr) & 0xF0, _highest(self._isr) & 0xF0)
        if offset == ESR:
            return self._shown_errors
        if offset == CURRENT:
            return self._count()
        if offset != EOI and offset % 16 == 0:
            self._fail(ILLEGAL_REGISTER)
        return 0

    def write(self, offset: int, value: int) -> None:
        """Write a register; those that are reserved or only to be read ignore it."""
        if not self.is_enabled:
            return
        self.advance()
        if offset == EOI:
            self._end()
        elif offset == ESR:
            self._shown_errors, self._errors = self._errors, 0
        elif offset in self._lvt:
            masked = 0 if self._kept[SVR] & SVR_ENABLE else LVT_MASKED
            self._lvt[offset] = value & LVT_BITS[offset] | masked
        elif offset in self._kept:
            self._write_kept(offset, value)

    def _write_kept(self, offset: int, value: int) -> None:
        count = self._count()
        high_byte = 0xFF << 24
        bits = {ID: high_byte, TPR: 0xFF, LDR: high_byte, SVR: SVR_BITS, ICR_LOW: ICR_BITS, ICR_HIGH: high_byte, DIVIDE: 0xB}
        self._kept[offset] = value & bits.get(offset, floating(4))
        if offset == DFR:
            self._kept[DFR] |= 0x0FFF_FFFF
        elif offset == SVR and not value & SVR_ENABLE:
            self._lvt = {register: entry | LVT_MASKED for register, entry in self._lvt.items()}
        elif offset == ICR_LOW:
            self._send(self._kept[ICR_LOW])
        elif offset == INITIAL:
            self._start(value)
        elif offset == DIVIDE:
            self._start(count)

    def _end(self) -> None:
        if not self._isr:
            return
        vector = _highest(self._isr)
        self._isr &= ~(1 << vector)
        if self._tmr >> vector & 1 and self.on_end_of_interrupt is not None:
            self.on_end_of_interrupt(vector)

    def check(self) -> None:
        """Assert the module's invariants; raises BrokenInvariantError."""
        if (self._irr | self._isr) & (1 << FIRST_VECTOR) - 1:
            raise BrokenInvariantError(f"APIC invariant 1: requests {self._irr:x}, in service {self._isr:x}")
        if self._expiry != NEVER and not self._kept[INITIAL]:
            raise BrokenInvariantError("APIC invariant 2: the timer runs without an initial count")


def _highest(bits: int) -> int:
    """The highest vector in a set, 0 if there is none."""
    return max(bits.bit_length() - 1, 0)
