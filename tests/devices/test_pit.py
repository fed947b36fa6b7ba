# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8254 by its data sheet: modes, counts, latches, gates, and edges on IRQ 0 that neither drift nor depend on steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.board import NEVER
from emu.devices.clock import ticks_at, time_of_tick
from emu.devices.pit import HERTZ, Counter, from_bcd, to_bcd
from tests.devices.helpers import INSNS_PER_SECOND, Bench

COMMAND, GATE_PORT = 0x43, 0x61
LOW, HIGH, BOTH = 1, 2, 3


def counter(mode: int, count: int, *, bcd: bool = False, gate: bool = True) -> Counter:
    """A counter whose count was written at tick 0."""
    made = Counter()
    made.gate = gate
    made.set_mode(BOTH, mode, bcd)
    write(made, count, 0)
    return made


def write(of: Counter, count: int, tick: int) -> None:
    of.write(count & 0xFF, tick)
    of.write(count >> 8, tick)


def levels(of: Counter, ticks: int, start: int = 0) -> str:
    return "".join("_-"[of.output(tick)] for tick in range(start, start + ticks))


def at(tick: int) -> int:
    """The virtual time of a tick."""
    return time_of_tick(tick, HERTZ, INSNS_PER_SECOND)


# ---- waveforms ----


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        (0, 4, "____------------"),
        (1, 4, "----------------"),  # waits for its gate
        (2, 4, "---_---_---_---_"),
        (3, 4, "--__--__--__--__"),
        (3, 5, "---__---__---__-"),
        (4, 4, "----_-----------"),
        (5, 4, "----------------"),
        (6, 4, "---_---_---_---_"),  # 6 and 7 are 2 and 3
        (7, 4, "--__--__--__--__"),
    ],
)
def test_output(mode: int, count: int, expected: str) -> None:
    assert levels(counter(mode, count), 16) == expected


@pytest.mark.parametrize(("mode", "expected"), [(1, "____----"), (5, "----_---")])
def test_gate_triggers_one_shots(mode: int, expected: str) -> None:
    shot = counter(mode, 4, gate=False)
    assert levels(shot, 8) == "--------"
    shot.set_gate(True, 10)
    assert levels(shot, 8, 10) == expected
    shot.set_gate(False, 20)
    shot.set_gate(True, 20)
    assert levels(shot, 8, 20) == expected


def test_a_trigger_before_the_count_is_written_starts_nothing() -> None:
    shot = Counter()
    shot.gate = False
    shot.set_mode(BOTH, 1, False)
    shot.set_gate(True, 0)
    write(shot, 4, 1)
    assert levels(shot, 8, 1) == "--------"


def test_a_one_shot_takes_a_new_count_with_its_next_trigger() -> None:
    shot = counter(1, 6, gate=False)
    shot.set_gate(True, 0)
    write(shot, 2, 3)
    assert levels(shot, 5, 3) == "___--"
    shot.set_gate(False, 10)
    shot.set_gate(True, 10)
    assert levels(shot, 4, 10) == "__--"


@pytest.mark.parametrize("mode", [0, 4])
def test_low_gate_holds_the_count(mode: int) -> None:
    held, free = counter(mode, 10), counter(mode, 10)
    held.set_gate(False, 4)
    assert [held.value(tick) for tick in (4, 50, 100)] == [6, 6, 6]
    held.set_gate(True, 100)
    assert levels(held, 20, 100) == levels(free, 20, 4)


def test_an_expired_interrupt_on_terminal_count_stays_high_whatever_its_gate() -> None:
    expired = counter(0, 4)
    expired.set_gate(False, 10)
    assert levels(expired, 3, 10) == "---"


@pytest.mark.parametrize("mode", [2, 3])
def test_low_gate_forces_periodic_outputs_high_and_its_rise_starts_anew(mode: int) -> None:
    periodic, fresh = counter(mode, 4), counter(mode, 4)
    periodic.set_gate(False, 3)
    assert levels(periodic, 8, 3) == "--------"
    assert periodic.next_rise(3) == NEVER
    periodic.set_gate(True, 30)
    assert levels(periodic, 8, 30) == levels(fresh, 8)


def test_control_word_sets_output_at_once_and_stops() -> None:
    for mode, level in ((0, False), (1, True), (2, True), (3, True), (4, True), (5, True)):
        running = counter(2, 4)
        running.set_mode(BOTH, mode, False)
        assert {running.output(tick) for tick in range(10)} == {level}
        assert running.next_rise(0) == NEVER


def test_first_byte_of_a_count_stops_mode_0() -> None:
    running = counter(0, 4)
    running.write(9, 10)
    assert levels(running, 4, 10) == "____"
    running.write(0, 20)
    assert running.next_rise(20) == 29


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("looked_at", [range(10, 400), range(400, 401), range(11, 400, 7)])
def test_new_period_begins_where_the_old_one_ends_however_often_one_looks(mode: int, looked_at: range) -> None:
    periodic, fresh = counter(mode, 100), counter(mode, 40)
    write(periodic, 40, 10)
    assert periodic.next_rise(10) == 100
    for tick in looked_at:
        periodic.output(tick)
    assert levels(periodic, 100, 500) == levels(fresh, 100)


@given(st.integers(0, 5), st.integers(1, 20), st.integers(0, 60))
def test_next_rise_is_the_next_change_of_output_from_low_to_high(mode: int, count: int, after: int) -> None:
    shape = levels(counter(mode, count), 100)
    rise = shape.find("_-", after)
    assert counter(mode, count).next_rise(after) == (rise + 1 if rise >= 0 else NEVER)


# ---- counts ----


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        (0, 3, [3, 2, 1, 0, 0xFFFF]),
        (2, 3, [3, 2, 1, 3, 2]),
        (3, 4, [4, 2, 4, 2, 4]),
        (3, 5, [4, 2, 0, 4, 2, 4]),
        (4, 2, [2, 1, 0, 0xFFFF]),
    ],
)
def test_counts(mode: int, count: int, expected: list[int]) -> None:
    assert [counter(mode, count).value(tick) for tick in range(len(expected))] == expected


def test_zero_is_the_longest_count() -> None:
    assert counter(2, 0).next_rise(0) == 0x1_0000
    assert counter(2, 0, bcd=True).next_rise(0) == 10_000


def test_bcd_counts_down_in_decimal() -> None:
    decimal = counter(0, 0x0100, bcd=True)
    assert [decimal.value(tick) for tick in (0, 1, 11, 100, 101)] == [0x0100, 0x0099, 0x0089, 0, 0x9999]


@given(st.integers(0, 9999))
def test_bcd_conversion_inverts(value: int) -> None:
    assert from_bcd(to_bcd(value)) == value
    assert f"{to_bcd(value):04x}" == f"{value:04}"


# ---- access ----


def program(bench: Bench, channel: int, access: int, mode: int, count: int) -> None:
    bench.write(COMMAND, channel << 6 | access << 4 | mode << 1)
    if access & LOW:
        bench.write(0x40 + channel, count & 0xFF)
    if access & HIGH:
        bench.write(0x40 + channel, count >> 8)


@pytest.mark.parametrize(("access", "count", "period"), [(LOW, 0x12, 0x12), (HIGH, 0x1200, 0x1200), (BOTH, 0x1234, 0x1234)])
def test_access_modes(bench: Bench, access: int, count: int, period: int) -> None:
    program(bench, 0, access, 2, count)
    assert bench.board.next_event() == at(period)
    read = [bench.read(0x40) for _ in range(2)]
    assert read == {LOW: [0x12, 0x12], HIGH: [0x12, 0x12], BOTH: [0x34, 0x12]}[access]


def test_latched_count_stands_until_both_bytes_are_read(bench: Bench) -> None:
    program(bench, 0, BOTH, 2, 0x1000)
    bench.write(COMMAND, 0x00)
    bench.run_to(at(0x123))
    bench.write(COMMAND, 0x00)  # ignored: one is held
    assert [bench.read(0x40), bench.read(0x40)] == [0x00, 0x10]
    assert [bench.read(0x40), bench.read(0x40)] == [0xDD, 0x0E]


def test_read_back_of_status_and_counts_of_several_counters(bench: Bench) -> None:
    program(bench, 0, BOTH, 2, 0x1234)
    program(bench, 1, LOW, 3, 0x10)
    bench.write(COMMAND, 0xC0 | 0x02 | 0x04)
    assert [bench.read(0x40) for _ in range(3)] == [0x80 | 0x30 | 2 << 1, 0x34, 0x12]
    assert [bench.read(0x41) for _ in range(2)] == [0x80 | 0x10 | 3 << 1, 0x10]


def test_status_tells_of_a_count_that_is_not_loaded(bench: Bench) -> None:
    bench.write(COMMAND, 0x34, 0xE2)
    assert bench.read(0x40) & 0x40
    bench.write(0x40, 0x10, 0x00)
    bench.write(COMMAND, 0xE2)
    assert not bench.read(0x40) & 0x40


def test_a_held_status_is_not_replaced(bench: Bench) -> None:
    program(bench, 0, BOTH, 0, 0x100)
    bench.write(COMMAND, 0xE2)
    bench.run_to(at(0x200))
    bench.write(COMMAND, 0xE2)
    assert [bench.read(0x40) >> 7, bench.board.pit.counters[0].output(0x200)] == [0, True]


def test_status_and_count_latched_apart_are_both_held(bench: Bench) -> None:
    program(bench, 0, BOTH, 2, 0x1234)
    bench.write(COMMAND, *[0xE2] * 5)  # all but the first are ignored
    bench.write(COMMAND, 0xD2)
    bench.run_to(at(0x100))
    assert [bench.read(0x40) for _ in range(3)] == [0xB4, 0x34, 0x12]
    assert bench.read(0x40) == 0x34


def test_command_port_cannot_be_read(bench: Bench) -> None:
    assert bench.read(COMMAND) == 0xFF


# ---- port 61 ----


def test_port_61_gates_channel_2_and_shows_its_output(bench: Bench) -> None:
    bench.write(GATE_PORT, 0x00)
    program(bench, 2, BOTH, 0, 1000)
    bench.run_to(at(5000))
    assert bench.read(GATE_PORT) & 0x23 == 0x00
    bench.write(GATE_PORT, 0x01)
    bench.run_to(at(5999))
    assert bench.read(GATE_PORT) & 0x23 == 0x01
    bench.run_to(at(6001))
    assert bench.read(GATE_PORT) & 0x23 == 0x21
    bench.write(GATE_PORT, 0x03)
    assert bench.read(GATE_PORT) & 0x03 == 0x03


def test_refresh_bit_toggles_every_15_us(bench: Bench) -> None:
    seen = []
    for microsecond in range(1, 3000):
        bench.clock.time = microsecond * INSNS_PER_SECOND // 1_000_000
        seen.append(bench.read(GATE_PORT) >> 4 & 1)
    toggles = sum(before != after for before, after in zip(seen, seen[1:], strict=False))
    assert toggles == pytest.approx(3000 / 15.085, abs=2)


# ---- IRQ 0 ----


def test_no_timer_runs_and_no_tick_waits_after_power_on(bench: Bench) -> None:
    bench.run_to(10**9)
    assert bench.board.next_event() == NEVER
    assert not bench.board.has_interrupt()


def test_ticks_neither_drift_nor_get_lost(bench: Bench) -> None:
    bench.start_pics()
    program(bench, 0, BOTH, 2, 11932)
    for number in range(1, 1001):
        event = bench.board.next_event()
        assert event == at(11932 * number)
        bench.run_to(event - 1)
        assert not bench.board.has_interrupt()
        bench.run_to(event)
        assert bench.serve() == 0
    assert bench.clock.time == 100_001_509  # 11,932,000 ticks of 1,193,182 a second take 10.00015089 s


def test_one_shot_ticks_once(bench: Bench) -> None:
    bench.start_pics()
    program(bench, 0, BOTH, 0, 1000)
    bench.run_to(bench.board.next_event())
    assert bench.serve() == 0
    assert bench.board.next_event() == NEVER
    bench.run_to(10**8)
    assert not bench.board.has_interrupt()


def test_ticks_missed_in_one_long_step_merge(bench: Bench) -> None:
    bench.start_pics()
    program(bench, 0, BOTH, 3, 1000)
    bench.run_to(at(10_300))
    assert bench.serve() == 0
    assert not bench.board.has_interrupt()


@given(
    mode=st.integers(0, 5),
    count=st.integers(1, 2000),
    new_count=st.none() | st.integers(1, 2000),
    steps=st.lists(st.integers(0, 30_000), min_size=1, max_size=20),
    insns_per_second=st.sampled_from([1_000_000, 1_193_182, 10_000_000, 3_333_333_333]),
)
def test_what_is_requested_does_not_depend_on_steps(
    mode: int, count: int, new_count: int | None, steps: list[int], insns_per_second: int
) -> None:
    many, one = Bench(insns_per_second), Bench(insns_per_second)
    for bench in (many, one):
        bench.start_pics()
        program(bench, 0, BOTH, mode, count)
        if new_count is not None:
            bench.write(0x40, new_count & 0xFF, new_count >> 8)
    for step in steps:
        many.run_to(many.clock.time + step)
        many.board.check()
    one.run_to(sum(steps))
    assert many.board.has_interrupt() == one.board.has_interrupt()
    assert many.board.next_event() == one.board.next_event()


@given(st.integers(1, 10**13), st.integers(1, 10**10))
def test_time_of_a_tick_is_the_first_at_which_it_has_come(tick: int, insns_per_second: int) -> None:
    time = time_of_tick(tick, HERTZ, insns_per_second)
    assert ticks_at(time - 1, HERTZ, insns_per_second) < tick <= ticks_at(time, HERTZ, insns_per_second)
