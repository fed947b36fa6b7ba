# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace leaves out: the boot ROM's events, other groups, other times. The guest's own events all stay."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from emu import events, images
from emu.config import Mmu, VmConfig
from emu.devices.board import COM1_BASE
from emu.events import CATALOGUE, Kind
from emu.trace import text
from emu.trace.selection import Selection, Selector
from emu.vm import launch
from tests.cli.test_boot import RESET, flat_kernel

EVERYTHING = frozenset(events.GROUPS)
LIMIT = 2_000_000
GUESTS = ("hello", "paging", "os-x86_64", "bootsector")
BOOT_SECTOR = 0x7C00
RESETS = 3


def record(what: launch.Boot, groups: frozenset[str] = EVERYTHING, mmu: Mmu = Mmu.SHADOW) -> np.ndarray:
    """All records of a run."""
    config = VmConfig(events=groups, mmu=mmu)
    kept = [np.zeros(0, events.RECORD)]
    vm = launch.new_machine(config, launch.boot_files(what, config.memory_bytes), launch.RecordingConsole(), kept.append)
    vm.stop_event(vm.run(limit=LIMIT))
    vm.close()
    return np.concatenate(kept)


def boot_of(guest: str) -> launch.Boot:
    if guest == "bootsector":
        return launch.Boot(launch.find_disk(Path(guest)), is_disk=True)
    return launch.Boot(launch.find_image(guest))


def entry_of(guest: str) -> int:
    """Where the boot ROM hands over."""
    files = launch.boot_files(boot_of(guest), VmConfig().memory_bytes)
    return BOOT_SECTOR if guest == "bootsector" else int.from_bytes(files["opt/emu/entry"], "little")


def selected(records: np.ndarray, selection: Selection, pieces: int = 1) -> np.ndarray:
    """What is shown of records that come in pieces."""
    select = Selector(selection, images.firmware())
    return np.concatenate([select(piece) for piece in np.array_split(records, pieces)])


@pytest.mark.parametrize("mmu", list(Mmu))
@pytest.mark.parametrize("guest", GUESTS)
def test_a_trace_begins_where_the_guest_does(guest: str, mmu: Mmu) -> None:
    records = record(boot_of(guest), mmu=mmu)
    shown = selected(records, Selection(EVERYTHING))
    first = shown[0]
    assert first["kind"] == Kind.HIDDEN_FAULT
    assert first["rip"] == first["va"] == entry_of(guest)  # the fetch of the first instruction
    assert np.array_equal(shown, records[len(records) - len(shown) :])  # and from there on it has everything
    hidden = records[: len(records) - len(shown)]
    assert entry_of(guest) not in hidden["rip"]


@pytest.mark.parametrize("guest", ["paging", "bootsector"])
def test_a_selection_of_groups_is_the_same_events(guest: str) -> None:
    """With only some groups recorded, too: those of the BIOS calls of a boot sector stay."""
    everything = record(boot_of(guest))
    whole = selected(everything, Selection(EVERYTHING))
    for group in events.GROUPS:
        selection = Selection(frozenset({group}))
        kinds = [int(kind) for kind, info in CATALOGUE.items() if info.group == group]
        expected = whole[np.isin(whole["kind"], kinds)]
        assert np.array_equal(selected(everything, selection), expected), group
    some = Selection(frozenset({"port"}))
    assert list(text.lines(selected(record(boot_of(guest), some.recorded), some))) == list(
        text.lines(whole[np.isin(whole["kind"], [Kind.PORT_READ, Kind.PORT_WRITE])])
    )
    assert ((whole["kind"] == Kind.PORT_WRITE) & (whole["va"] == COM1_BASE)).any()


def test_after_a_reset_the_rom_s_are_left_out_again(tmp_path: Path) -> None:
    records = record(launch.Boot(flat_kernel(tmp_path, RESET)))
    shown = selected(records, Selection(EVERYTHING))
    assert (records["kind"] == Kind.RESET).sum() > RESETS
    assert (shown["kind"] == Kind.RESET).sum() == (records["kind"] == Kind.RESET).sum() - 1  # but for power-on
    from_rom = (shown["rip"] >= 0xF_0000) & (shown["rip"] < 0x10_0000)
    assert not from_rom[:-1].any()  # the run may have ended in the ROM, which is always told
    assert shown[-1]["kind"] == Kind.STOP


def test_pieces_make_no_difference(tmp_path: Path) -> None:
    records = record(launch.Boot(flat_kernel(tmp_path, RESET)))
    rng = random.Random(1)
    for pieces in (2, 7, len(records), rng.randrange(2, len(records))):
        assert np.array_equal(selected(records, Selection(EVERYTHING), pieces), selected(records, Selection(EVERYTHING)))


def test_with_the_firmware_it_is_all() -> None:
    records = record(boot_of("hello"))
    assert np.array_equal(selected(records, Selection(EVERYTHING, with_firmware=True)), records)


def test_times() -> None:
    records = record(boot_of("hello"))
    since, until = 3000, 8000
    shown = selected(records, Selection(EVERYTHING, since=since, until=until))
    *body, end = shown
    assert len(body) > 10
    assert all(since <= row["time"] < until for row in body)
    assert end["kind"] == Kind.STOP
    whole = selected(records, Selection(EVERYTHING))
    assert len(body) == ((whole["time"] >= since) & (whole["time"] < until)).sum()


def test_an_end_in_the_rom_is_told(tmp_path: Path) -> None:
    """A disk without a boot sector's signature."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    shown = selected(record(launch.Boot(tmp_path / "disk", is_disk=True)), Selection(EVERYTHING))
    assert [int(kind) for kind in shown["kind"]] == [Kind.STOP]


def test_what_must_be_recorded() -> None:
    assert Selection(frozenset({"cr3"})).recorded == {"cr3", "fault", "stop"}
    assert Selection(frozenset({"cr3"}), with_firmware=True).recorded == {"cr3"}
    assert Selection(frozenset()).recorded == frozenset()
