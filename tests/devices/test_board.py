# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole board under a guest that does anything: it never raises, keeps its invariants, and is a function of its input."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.devices.board import NEVER
from tests.devices.helpers import INSNS_PER_SECOND, Bench, BenchDisk

MASTER = 0xC000  # where the bus master of the drive is put
DEVICE_PORTS = [
    *(0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xA0, 0xA1, 0xE9),
    *range(0xF3, 0xF9),
    *range(0x3F6, 0x402),
    *range(0x4CF, 0x4D3),
    *range(0x50F, 0x51D),
    *range(0xCF6, 0xD00),
    *range(0x1EF, 0x1F8),
    *range(MASTER, MASTER + 16),
    *(0x0, 0xFFFF),
]
PORTS = st.sampled_from(DEVICE_PORTS) | st.integers(0, 0xFFFF)
SIZES = st.sampled_from([1, 2, 4])
STEPS = st.integers(0, 1000) | st.integers(0, 30 * INSNS_PER_SECOND)
DRIVE_COMMANDS = [0x20, 0x24, 0x25, 0x29, 0x30, 0x35, 0x40, 0x90, 0x91, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xE7, 0xEC, 0xEF, 0x77]
ACTIONS = st.one_of(
    st.tuples(st.just("read"), PORTS, SIZES),
    st.tuples(st.just("write"), PORTS, SIZES, st.integers(0, 0xFFFF_FFFF) | st.integers(0, 0xFF)),
    st.tuples(st.just("write"), PORTS, st.just(1), st.integers(0, 0xFF)),
    st.tuples(st.just("write"), st.just(0x1F7), st.just(1), st.sampled_from(DRIVE_COMMANDS)),
    st.tuples(st.just("configure"), st.sampled_from([0x04, 0x20, 0x21]), st.integers(0, 0xFFFF)),
    st.tuples(st.just("pass"), STEPS),
    st.tuples(st.just("receive"), st.binary(max_size=20)),
    st.tuples(st.just("acknowledge")),
    st.tuples(st.just("reset")),
)


def configure(bench: Bench, register: int, value: int) -> None:
    """Write to the IDE controller's configuration space."""
    bench.write(0xCF8, 0x8000_0900 | register & 0xFC, size=4)
    bench.write(0xCFC + register % 4, value, size=2)


DRIVES = 3  # both of the first channel, one of the second


def with_drive() -> Bench:
    bench = Bench(disks=[BenchDisk() for _ in range(DRIVES)])
    configure(bench, 0x20, MASTER)
    configure(bench, 0x04, 5)
    return bench


def perform(bench: Bench, action: tuple) -> object:
    """One action; returns what it gave."""
    board = bench.board

    def receive(data: bytes) -> int:
        room, taken = board.serial_room(), board.receive(data)
        assert taken == min(room, len(data))
        return taken

    def read(port: int, size: int) -> int:
        value = bench.read(port, size)
        assert 0 <= value < 1 << 8 * size
        return value

    does: dict[str, Callable[..., object]] = {
        "read": read,
        "write": lambda port, size, value: bench.write(port, value, size=size),
        "configure": lambda register, value: configure(bench, register, value),
        "pass": lambda step: bench.run_to(bench.clock.time + step),
        "receive": receive,
        "acknowledge": board.acknowledge,
        "reset": board.reset,
    }
    result = does[action[0]](*action[1:])
    board.check()
    return result, board.has_interrupt(), board.next_event()


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_any_accesses_keep_the_invariants_and_repeat_exactly(actions: list[tuple]) -> None:
    first, second = with_drive(), with_drive()
    assert [perform(first, action) for action in actions] == [perform(second, action) for action in actions]
    assert first.signals == second.signals
    assert first.memory == second.memory
    assert first.disks == second.disks


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_an_event_always_lies_ahead_once_the_board_is_up_to_date(actions: list[tuple]) -> None:
    """Otherwise a VMM that jumps from event to event would stand still."""
    bench = with_drive()
    for action in actions:
        perform(bench, action)
        bench.board.advance()
        assert bench.clock.time < bench.board.next_event() <= NEVER


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS.filter(lambda action: action[0] != "pass"), max_size=40))
def test_reset_leaves_nothing_behind_but_time_and_cmos(actions: list[tuple]) -> None:
    bench, fresh = with_drive(), Bench(disks=[BenchDisk() for _ in range(DRIVES)])
    for action in actions:
        perform(bench, action)
    bench.board.reset()
    for port in [
        *range(0x40, 0x43),
        0x20,
        0x21,
        0xA0,
        0xA1,
        0x61,
        0x60,
        0x64,
        0x92,
        *range(0x3F8, 0x400),
        0x4D0,
        0x511,
        0xCF9,
        *range(0x1F1, 0x1F8),
        0x3F6,
        *range(0x171, 0x178),
        0x376,
        MASTER,
    ]:
        assert bench.read(port) == fresh.read(port), hex(port)
    assert (bench.board.has_interrupt(), bench.board.next_event()) == (False, NEVER)


def test_state_does_not_grow_with_what_a_guest_writes() -> None:
    def state_bytes(rounds: int) -> int:
        bench = Bench()
        for value in range(256):
            for port in DEVICE_PORTS:
                if port not in (0xE9, *range(0xF4, 0xF8), 0x3F8, *range(0x51A, 0x51D)):  # outputs, kept by the bench
                    bench.write(port, *[value] * rounds)
        board = bench.board
        parts = [board.pic.master, board.pic.slave, *board.pit.counters]
        parts += [{k: v for k, v in vars(d).items() if not callable(v)} for d in (board.keyboard, board.uart)]
        return len(pickle.dumps([part if isinstance(part, dict) else vars(part) for part in parts]))

    assert state_bytes(50) <= state_bytes(2) + 64
