# SPDX-License-Identifier: GPL-2.0-or-later
"""The MC146818 by its data sheet: time and its formats, setting, update flag, alarms and periodic interrupts on IRQ 8."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.board import NEVER
from tests.devices.helpers import INSNS_PER_SECOND, RAM_BYTES, Bench

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D = range(14)
CENTURY = 0x32
SET, PIE, AIE, UIE, BINARY, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
RTC_IRQ = 8


class Rtc(Bench):
    """The bench with an index and data port for its clock."""

    def get(self, register: int) -> int:
        self.write(0x70, register)
        return self.read(0x71)

    def put(self, register: int, value: int) -> None:
        self.write(0x70, register)
        self.write(0x71, value)
        self.board.check()

    def date(self) -> str:
        return "{:02x}{:02x}-{:02x}-{:02x} {:02x}:{:02x}:{:02x}".format(
            *map(self.get, (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS))
        )

    def after(self, seconds: float) -> None:
        self.run_to(self.clock.time + int(seconds * INSNS_PER_SECOND))
        self.board.check()


@pytest.fixture
def rtc() -> Rtc:
    bench = Rtc()
    bench.start_pics()
    return bench


def test_starts_at_the_given_time(rtc: Rtc) -> None:
    assert rtc.date() == "2002-01-30 23:59:55"
    assert rtc.get(WEEKDAY) == 4  # Wednesday; Sunday is 1
    assert rtc.get(D) == 0x80


def test_virtual_time_moves_it(rtc: Rtc) -> None:
    rtc.after(5)
    assert rtc.date() == "2002-01-31 00:00:00"
    rtc.after(24 * 3600)
    assert rtc.date() == "2002-02-01 00:00:00"


@pytest.mark.parametrize(
    ("hour", "twelve", "binary"),
    [(0, 0x12, 0x0C), (1, 0x01, 0x01), (11, 0x11, 0x0B), (12, 0x92, 0x8C), (13, 0x81, 0x81), (23, 0x91, 0x8B)],
)
def test_formats_of_the_hour(rtc: Rtc, hour: int, twelve: int, binary: int) -> None:
    rtc.after((hour * 3600 + 5) % (24 * 3600))
    rtc.put(B, 0)
    assert rtc.get(HOURS) == twelve
    rtc.put(B, BINARY)
    assert rtc.get(HOURS) == binary
    rtc.put(B, BINARY | H24)
    assert rtc.get(HOURS) == hour
    assert rtc.get(YEAR) == 2


def test_nmi_bit_of_the_index_is_ignored(rtc: Rtc) -> None:
    assert rtc.get(0x80 | MONTH) == 0x01


def test_update_in_progress_in_the_last_244_us_of_a_second(rtc: Rtc) -> None:
    seen = {}
    for microseconds in (1, 999_700, 999_800, 999_999):
        rtc.clock.time = microseconds * 10
        seen[microseconds] = rtc.get(A) >> 7
    assert seen == {1: 0, 999_700: 0, 999_800: 1, 999_999: 1}
    rtc.put(B, H24 | SET)
    assert not rtc.get(A) & 0x80


# ---- setting ----

ORDERS = [[YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS, CENTURY], [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY]]


def set_time(rtc: Rtc, moment: datetime.datetime, order: list[int], formats: int) -> None:
    encode = (lambda value: value) if formats & BINARY else lambda value: value // 10 << 4 | value % 10
    hour = encode(moment.hour) if formats & H24 else encode((moment.hour - 1) % 12 + 1) | (moment.hour >= 12) << 7
    values = {
        CENTURY: encode(moment.year // 100),
        YEAR: encode(moment.year % 100),
        MONTH: encode(moment.month),
        DAY: encode(moment.day),
        HOURS: hour,
        MINUTES: encode(moment.minute),
        SECONDS: encode(moment.second),
    }
    rtc.put(B, SET | formats)
    for register in order:
        rtc.put(register, values[register])
        assert rtc.get(register) == values[register]
    rtc.put(B, formats)


MOMENTS = st.integers(0, 7_258_118_399).map(lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.UTC))  # to 2199


@given(
    first=MOMENTS,
    second=MOMENTS,
    order=st.sampled_from(ORDERS),
    formats=st.sampled_from([H24, 0, BINARY, H24 | BINARY]),
)
def test_any_time_can_be_set_in_any_order(
    first: datetime.datetime, second: datetime.datetime, order: list[int], formats: int
) -> None:
    """Twice: from the last of a month to one that is shorter, a half-set date is no date."""
    rtc = Rtc()
    set_time(rtc, first, order, formats)
    set_time(rtc, second, order, formats)
    rtc.put(B, H24)
    assert rtc.date() == f"{second:%Y-%m-%d %H:%M:%S}".zfill(19)


def test_time_stands_still_while_set(rtc: Rtc) -> None:
    rtc.put(B, SET | H24)
    rtc.after(100)
    assert rtc.date() == "2002-01-30 23:59:55"
    rtc.put(B, H24)
    rtc.after(5)
    assert rtc.date() == "2002-01-31 00:00:00"


def test_a_single_register_can_be_changed_while_running(rtc: Rtc) -> None:
    rtc.put(MINUTES, 0x30)
    rtc.after(5)
    assert rtc.date() == "2002-01-30 23:31:00"


def test_impossible_dates_become_possible_ones(rtc: Rtc) -> None:
    rtc.put(B, SET | H24)
    for register in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY):
        rtc.put(register, 0xFF)
    rtc.put(B, H24)
    rtc.after(1)
    assert datetime.datetime.strptime(rtc.date() + " +0000", "%Y-%m-%d %H:%M:%S %z")


# ---- interrupts ----


def test_update_interrupt_each_second_until_c_is_read(rtc: Rtc) -> None:
    rtc.put(B, H24 | UIE)
    assert rtc.board.next_event() == INSNS_PER_SECOND
    rtc.run_to(INSNS_PER_SECOND)
    assert rtc.serve() == RTC_IRQ
    assert rtc.board.next_event() == NEVER
    assert rtc.get(C) & (IRQF | UF) == IRQF | UF
    assert rtc.get(C) == 0
    assert rtc.board.next_event() == 2 * INSNS_PER_SECOND


@pytest.mark.parametrize(("rate", "hertz"), [(0x3, 8192), (0x6, 1024), (0xF, 2), (0x1, 256), (0x2, 128)])
def test_periodic_interrupt(rtc: Rtc, rate: int, hertz: int) -> None:
    rtc.put(A, 0x20 | rate)
    rtc.put(B, H24 | PIE)
    served = 0
    while rtc.board.next_event() <= INSNS_PER_SECOND // 2:
        rtc.run_to(rtc.board.next_event())
        assert rtc.serve() == RTC_IRQ
        assert rtc.get(C) & PF
        served += 1
    assert served == hertz // 2


def test_rate_zero_is_off(rtc: Rtc) -> None:
    rtc.put(A, 0x20)
    rtc.put(B, H24 | PIE)
    assert rtc.board.next_event() == NEVER


def test_flags_come_without_interrupts_enabled(rtc: Rtc) -> None:
    for register in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
        rtc.put(register, 0xFF)
    rtc.get(C)
    rtc.after(1)
    assert rtc.get(C) == PF | AF | UF
    assert not rtc.board.has_interrupt()


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [((0x05, 0x00, 0x00), 10), ((0x05, 0xC0, 0xFF), 10), ((0xFF, 0x00, 0xFF), 5), ((0x00, 0x00, 0x01), 3605)],
)
def test_alarm(rtc: Rtc, alarm: tuple[int, int, int], seconds: int) -> None:
    for register, value in zip((SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM), alarm, strict=True):
        rtc.put(register, value)
    rtc.put(B, H24 | AIE)
    while not rtc.board.has_interrupt():
        rtc.run_to(rtc.board.next_event())
    assert rtc.clock.time == seconds * INSNS_PER_SECOND
    assert rtc.get(C) & (IRQF | AF) == IRQF | AF


def test_disabling_the_cause_lowers_the_line(rtc: Rtc) -> None:
    rtc.put(B, H24 | UIE)
    rtc.after(1)
    assert rtc.serve() == RTC_IRQ
    rtc.put(B, H24)
    rtc.put(B, H24 | UIE)  # the flag is still up: a new edge
    assert rtc.serve() == RTC_IRQ


def test_enabling_with_a_flag_up_interrupts_at_once(rtc: Rtc) -> None:
    rtc.after(1)
    assert not rtc.board.has_interrupt()
    rtc.put(B, H24 | UIE)
    assert rtc.serve() == RTC_IRQ


def test_changing_the_rate_counts_no_period_twice(rtc: Rtc) -> None:
    rtc.put(A, 0x2F)
    rtc.get(C)
    rtc.clock.time = 3 * INSNS_PER_SECOND // 10  # and nobody told the board: many periods of the new rate, none of the old
    rtc.put(A, 0x23)
    assert not rtc.get(C) & PF


# ---- memory ----


def word(rtc: Rtc, at: int) -> int:
    return rtc.get(at) | rtc.get(at + 1) << 8


def test_memory_size_as_a_bios_leaves_it(rtc: Rtc) -> None:
    assert word(rtc, 0x15) == 640
    assert word(rtc, 0x17) == word(rtc, 0x30) == (RAM_BYTES >> 10) - 1024
    assert word(rtc, 0x34) == (RAM_BYTES - (16 << 20)) >> 16


def test_memory_outlives_a_reset(rtc: Rtc) -> None:
    rtc.put(0x0F, 0x0A)
    rtc.board.reset()
    assert rtc.get(0x0F) == 0x0A


@pytest.mark.parametrize("held", [0, SET])
def test_reset_stops_interrupts_but_not_the_clock(rtc: Rtc, held: int) -> None:
    rtc.put(B, H24 | PIE | AIE | UIE | held)
    rtc.board.reset()
    assert rtc.get(B) == H24
    assert rtc.board.next_event() == NEVER
    rtc.after(5)
    assert rtc.date() == "2002-01-31 00:00:00"
