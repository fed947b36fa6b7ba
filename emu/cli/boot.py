"""`emu boot`: one guest on one machine, from the reset vector to its end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table

from emu.cli.boot_options import AT_END, BootOptions
from emu.cli.compiling import prepare_native_code
from emu.cli.console import HostConsole, write_out
from emu.cli.trace_output import trace_output
from emu.devices import vga
from emu.devices.ata import DriveCounts
from emu.devices.balloon import Balloon
from emu.errors import OutputError, explain
from emu.events import Outcome
from emu.machine import crash
from emu.trace import counters
from emu.vm import launch

STATUS_LIMIT, STATUS_TRIPLE_FAULT, STATUS_HALTED, STATUS_RESET, STATUS_UNSUPPORTED, STATUS_INTERRUPTED = (
    124,
    80,
    82,
    84,
    86,
    130,
)


def what_to_boot(options: BootOptions) -> launch.Boot:
    """The image that the command line names; raises UsageError when there is none."""
    if options.boot_disk is not None:
        return launch.Boot(launch.find_disk(options.boot_disk), is_disk=True)
    return launch.Boot(launch.find_image(options.guest or ""), options.append, options.modules)


def boot(options: BootOptions) -> int:
    """Boot, run, sum up; the exit status of the command."""
    config = options.config
    what = what_to_boot(options)
    files = launch.boot_files(what, config.memory_bytes)
    disks = launch.open_disks(options.disks, what)
    prepare_native_code()
    console = HostConsole()
    for disk in disks:
        disk.on_trouble = console.write_trouble
    crash.install()
    crash.at_crash(console.restore)
    failures: list[BaseException] = []
    stop = None
    try:
        with trace_output(options.trace, options.selection, console) as on_events:
            vm = launch.new_machine(config, files, console, on_events, disks)
            vm.no_reboot = options.no_reboot
            crash.at_crash(vm.flush_events)
            console.show_progress(lambda: f"{vm.retired_insns:,} instructions, virtual time {vm.virtual_seconds:.3f} s")
            with console.session(vm.interrupt):
                stop = _run_to_an_end(vm, options, failures)
            vm.stop_event(stop)
    except OutputError as error:
        if stop is None:
            raise
        failures.append(error)
    status = _status(stop, failures, raw=options.raw_exit)
    for show in _reports(vm, stop, options, status, is_mid_line=console.is_mid_line):
        try:
            show()
        except Exception as error:  # noqa: BLE001  (what else there is to say is still said)
            failures.append(error)
    if failures and not isinstance(failures[0], KeyboardInterrupt):
        raise failures[0]
    return status


def _run_to_an_end(vm: Any, options: BootOptions, failures: list[BaseException]) -> Any:
    """How the run ended; what emu itself, or a second Ctrl-C, ended it with is in `failures`."""
    from emu.vm.exits import Stop  # noqa: PLC0415  (compiles on import)

    try:
        return _run(vm, options)
    except KeyboardInterrupt as error:
        failures.append(error)
        return Stop(Outcome.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  (main explains it, when all else has been said)
        failures.append(error)
        return Stop(Outcome.FAILED, why=str(explain(error)))


def _status(stop: Any, failures: list[BaseException], *, raw: bool) -> int:
    if not failures:
        return exit_status(stop, raw=raw)
    return STATUS_INTERRUPTED if isinstance(failures[0], KeyboardInterrupt) else explain(failures[0]).exit_status


def _reports(vm: Any, stop: Any, options: BootOptions, status: int, *, is_mid_line: bool) -> list[Callable[[], None]]:
    """What is to be printed at the end, on lines of its own."""
    prints = options.tables == AT_END or options.shows_screen or options.as_json
    reports: list[tuple[bool, Callable[[], None]]] = [
        (is_mid_line and prints, lambda: write_out(b"\n")),
        (options.tables == AT_END, lambda: _print_tables(vm)),
        (options.shows_screen, lambda: _print_screen(vm)),
        (not options.quiet, lambda: _print_summary(vm, stop)),
        (options.as_json, lambda: write_out((json.dumps(summary(vm, stop, options, status)) + "\n").encode())),
    ]
    return [show for is_wanted, show in reports if is_wanted]


def _run(vm: Any, options: BootOptions) -> Any:
    if options.tables is None or options.tables == AT_END:
        return vm.run(limit=options.insn_limit, time_limit=options.time_limit)
    vm.run_until(int(options.tables), limit=options.insn_limit, time_limit=options.time_limit)
    _print_tables(vm)
    return vm.run(limit=options.insn_limit, time_limit=options.time_limit)


def exit_status(stop: Any, *, raw: bool) -> int:
    """The status of `emu boot` for the end of a run (documented in the README)."""
    if stop.outcome is Outcome.EXITED:
        return 0 if stop.value == 0 and not raw else (2 * stop.value + 1) & 0xFF
    return {
        Outcome.LIMIT: STATUS_LIMIT,
        Outcome.TRIPLE_FAULT: STATUS_TRIPLE_FAULT,
        Outcome.HALTED: STATUS_HALTED,
        Outcome.RESET: STATUS_RESET,
        Outcome.UNSUPPORTED: STATUS_UNSUPPORTED,
        Outcome.INTERRUPTED: STATUS_INTERRUPTED,
    }[stop.outcome]


def summary(vm: Any, stop: Any, options: BootOptions, status: int) -> dict[str, Any]:
    """The object that --json prints: nothing in it differs between two equal runs."""
    return {
        "guest": options.guest if options.boot_disk is None else str(options.boot_disk),
        "mmu": str(options.config.mmu),
        "memory_bytes": options.config.memory_bytes,
        "outcome": str(stop.outcome),
        "exit_value": stop.value,
        "why": stop.why,
        "status": status,
        "instructions": vm.retired_insns,
        "virtual_time": vm.virtual_time,
        "post_code": vm.board.system.post_code,
        "screen": None if (screen := vm.screen()) is None else [line.rstrip() for line in screen],
        "disk": disk_summary(vm),
        "disks": [{"name": drive.disk.name, **dataclasses.asdict(drive.counts)} for drive in vm.board.ide.drives],
        "balloon": balloon_summary(vm.balloon),
        "counters": counters.counters(vm.control, vm.state.counters),
    }


def _print_summary(vm: Any, stop: Any) -> None:
    errors = RichConsole(stderr=True, highlight=False, soft_wrap=True)
    what = f"{stop.outcome} with value {stop.value}" if str(stop.outcome) == "exited" else str(stop.outcome)
    why = f" ({stop.why})" if stop.why else ""
    errors.print(
        f"emu: {what}{why} after {vm.retired_insns:,} instructions, virtual time {vm.virtual_seconds:.6f} s",
        markup=False,
    )
    for number, drive in enumerate(vm.board.ide.drives, 1):
        name = "disk" if len(vm.board.ide.drives) == 1 else f"disk {number}"
        errors.print(_disk_line(name, drive.counts), markup=False)
    if vm.balloon.counts.calls or vm.balloon.target:
        errors.print(_balloon_line(vm.balloon), markup=False)
    table = Table.grid(padding=(0, 3))
    counts = [(name, count) for name, count in counters.counters(vm.control, vm.state.counters).items() if count]
    columns = 3
    rows = -(-len(counts) // columns)
    for _ in range(columns):
        table.add_column()
        table.add_column(justify="right")
    for row in range(rows):
        cells = [counts[row + rows * column] for column in range(columns) if row + rows * column < len(counts)]
        table.add_row(*(str(part) if isinstance(part, str) else f"{part:,}" for cell in cells for part in cell))
    errors.print(table)


def disk_summary(vm: Any) -> dict[str, int] | None:
    """What all disks did, in the summary's JSON; null if there is none."""
    counts = [dataclasses.asdict(drive.counts) for drive in vm.board.ide.drives]
    return {name: sum(one[name] for one in counts) for name in counts[0]} if counts else None


def balloon_summary(balloon: Balloon) -> dict[str, Any] | None:
    """The balloon in the summary's JSON; null if nobody called and nothing was wanted. Sizes are in pages."""
    if not balloon.counts.calls and not balloon.target:
        return None
    return {
        "state": balloon.state(),
        "target": balloon.target,
        "size": balloon.size,
        **vars(balloon.counts),
        "refused": dict(balloon.counts.refused),
    }


def _balloon_line(balloon: Balloon) -> str:
    counts = balloon.counts
    refused = "".join(f", {number:,} {name.replace('_', ' ')}" for name, number in sorted(counts.refused.items()))
    return (
        f"emu: balloon: {balloon.state()}, {balloon.size:,} of {balloon.target:,} pages; {counts.calls:,} calls, {counts.locks:,} pages locked, "
        f"{counts.unlocks:,} unlocked, {counts.pops:,} pops{refused}"
    )


def _disk_line(name: str, counts: DriveCounts) -> str:
    return (
        f"emu: {name}: {counts.reads:,} reads of {counts.read_bytes:,} bytes, {counts.writes:,} writes of {counts.written_bytes:,} bytes, "
        f"{counts.flushes:,} flushes, {counts.errors:,} errors"
    )


def _print_tables(vm: Any) -> None:
    from emu.trace import tables_text
    from emu.vm import tables

    vm.flush_events()
    title = f"page tables at virtual time {vm.virtual_time}, CR3 {vm.guest_cr3:08x}, {vm.config.mmu} paging"
    lines = tables_text.table_lines(tables.ranges(vm.state), title=title)
    write_out(("\n".join(lines) + "\n").encode())


def _print_screen(vm: Any) -> None:
    screen = vm.screen() or [" " * vga.COLUMNS] * vga.ROWS
    edge = "─" * vga.COLUMNS
    lines = [f"┌{edge}┐", *(f"│{line}│" for line in screen), f"└{edge}┘"]
    write_out(("\n".join(lines) + "\n").encode())
