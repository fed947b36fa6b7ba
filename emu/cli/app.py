"""Commands and options, with Typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu import __version__, events, images
from emu.bench.names import NAMES
from emu.cli import completion
from emu.cli.boot_options import BootOptions
from emu.cli.console import write_out
from emu.cli.disk_commands import disk_app
from emu.cli.request import OPTIONAL_VALUES, Request
from emu.config import (
    MICROSECONDS,
    SHADOW_SWITCHES,
    Mmu,
    VmConfig,
    parse_balloon,
    parse_count,
    parse_duration,
    parse_mmu,
    parse_moment,
    parse_number,
    parse_shadow_memory,
    parse_size,
    parse_switches,
)
from emu.errors import UsageError
from emu.outputs import JUNIT, PARQUET, SNAPSHOT, TRACE, check_output
from emu.trace.selection import Selection
from emu.units import MIB, PAGE_BYTES
from emu.wording import unknown

DEFAULTS = VmConfig()
SHORTEST_US = 100_000  # a slice of the host's virtual time
SHADOW_MEMORY = f"{DEFAULTS.shadow_pages * PAGE_BYTES // MIB}M"

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A virtual machine monitor and a laboratory for virtual-machine memory management.",
)
app.add_typer(disk_app, name="disk")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"emu {__version__}")
        raise typer.Exit


@app.callback()
def emu(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print emu's version.")
    ] = False,
) -> None:
    """A virtual machine monitor and a laboratory for virtual-machine memory management."""


@app.command("help")
def show_help(names: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Which; none: all.")] = None) -> None:
    """Show the help of a command, as its --help does."""
    app([*(names or ()), "--help"], prog_name="emu", standalone_mode=False)


def _event_groups(names: str | None, *, traced: bool) -> frozenset[str]:
    if not traced:
        if names is not None:
            raise UsageError("--events selects what --trace shows: give --trace too")
        return frozenset()
    groups = [name.strip() for name in names.split(",")] if names is not None else list(events.GROUPS)
    for name in groups:
        if name not in events.GROUPS:
            raise unknown("event group", name, events.GROUPS)
    return frozenset(groups)


def _time_limit(text: str | None) -> int | None:
    """Virtual time in instructions of a limit such as `30s`."""
    if text is None:
        return None
    microseconds = parse_duration(text, what="--time-limit")
    if not microseconds:
        raise UsageError("--time-limit 0: at least 1us is needed")
    return microseconds * DEFAULTS.insns_per_second // MICROSECONDS


def _moment(text: str | None, what: str) -> int | None:
    """Virtual time in instructions of an option."""
    return None if text is None else parse_moment(text, DEFAULTS.insns_per_second, what=what)


def _check_tables(at: str | None) -> str | int | None:
    return at if at in (None, OPTIONAL_VALUES["--tables"]) else _moment(at, "--tables")


def _find_kernel_or_disk(
    guest: str | None, boot_disk: Path | None, append: str, module: list[Path] | None
) -> tuple[str | None, Path | None]:
    """A guest and a boot disk, of which one is None: the name of a boot disk that comes with emu will do as guest."""
    if boot_disk is not None and (guest is not None or append or module):
        raise UsageError("--boot-disk boots without a kernel: it takes no guest, --append or --module")
    if boot_disk is None and guest is None:
        raise UsageError("nothing to boot: give a guest, or --boot-disk FILE")
    if guest in [info.name for info in images.disks()]:
        if append or module:
            raise UsageError(f"{guest} is a boot disk, which boots without a kernel: it takes no --append or --module")
        return None, Path(guest)
    return guest, boot_disk


@app.command()
def boot(
    guest: Annotated[
        str | None,
        typer.Argument(
            help="A guest or boot disk that comes with emu, by name, or a multiboot kernel file.",
            autocompletion=completion.guests,
        ),
    ] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Size of guest memory.")] = f"{DEFAULTS.memory_bytes // MIB}M",
    append: Annotated[str, typer.Option(metavar="TEXT", help="Arguments on the kernel's command line.")] = "",
    module: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A file to pass as a boot module; repeatable.")
    ] = None,
    boot_disk: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Boot from this disk image, in real mode, instead of a kernel.",
            autocompletion=completion.boot_disks,
        ),
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[,readonly]", help="Attach a disk: a raw image, or memory:SIZE for an empty one; repeatable."),
    ] = None,
    disk_latency: Annotated[
        str, typer.Option(metavar="TIME", help="Virtual time of each disk command.")
    ] = f"{DEFAULTS.disk_latency_us}us",
    disk_bandwidth: Annotated[
        str, typer.Option(metavar="SIZE", help="Bytes that the disk transfers in a second of virtual time.")
    ] = f"{DEFAULTS.disk_bytes_per_second // MIB}M",
    balloon: Annotated[
        str, typer.Option(metavar="SIZE@TIME,...", help="Targets of the balloon at virtual times, such as 8M@10s,0@20s.")
    ] = "",
    mmu: Annotated[
        str, typer.Option(metavar="|".join(Mmu), help="How the guest's paging is virtualized.", autocompletion=lambda: list(Mmu))
    ] = DEFAULTS.mmu.value,
    shadow: Annotated[
        str,
        typer.Option(
            metavar="SWITCHES",
            help=f"Optimizations of the shadow MMU to do without: {', '.join(SHADOW_SWITCHES)}, or all.",
            autocompletion=completion.shadow_switches,
        ),
    ] = "",
    shadow_memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Cap on shadow page tables; least recently used ones go.")
    ] = SHADOW_MEMORY,
    cpu_limit: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Stop after so many guest instructions, such as 5M (million).")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop at this virtual time, such as 30s; sleep counts too.")
    ] = None,
    trace: Annotated[str | None, typer.Option(metavar="[=FILE]", help="Trace events to standard error, or to a file.")] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--events",
            metavar="GROUPS",
            help=f"Groups of events to trace: {', '.join(events.GROUPS)}.",
            autocompletion=completion.event_groups,
        ),
    ] = None,
    trace_firmware: Annotated[
        bool,
        typer.Option("--trace-firmware", help="Trace the boot ROM too, from a reset to the first instruction outside of it."),
    ] = False,
    trace_from: Annotated[
        str | None, typer.Option(metavar="TIME", help="Trace from this virtual time on: instructions such as 5M, or 2s.")
    ] = None,
    trace_until: Annotated[str | None, typer.Option(metavar="TIME", help="Trace until this virtual time.")] = None,
    tables: Annotated[
        str | None, typer.Option(metavar="[=AT]", help="Print the page tables at the end, or at a virtual time such as 5M or 2s.")
    ] = None,
    vga: Annotated[bool, typer.Option("--vga", help="Print the text on the screen at the end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary object as the last line of output.")] = False,
    raw_exit: Annotated[bool, typer.Option("--raw-exit", help="Exit value 0 ends with status 1, as in QEMU.")] = False,
    no_reboot: Annotated[bool, typer.Option("--no-reboot", help="A reset by the guest ends the run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary on standard error.")] = False,
) -> Request:
    """Boot a guest kernel, or a disk. Its serial port is standard input and output; Ctrl-A h tells of keys."""
    if trace == "":
        raise UsageError("--trace=: a file name is missing; --trace alone traces to standard error")
    if trace is not None and trace != OPTIONAL_VALUES["--trace"]:
        check_output(Path(trace), TRACE, "--trace")
    selects_times = trace_from is not None or trace_until is not None
    if trace is None and (trace_firmware or selects_times):
        raise UsageError("--trace-firmware, --trace-from and --trace-until select what --trace shows: give --trace too")
    guest, boot_disk = _find_kernel_or_disk(guest, boot_disk, append, module)
    selection = Selection(
        _event_groups(select, traced=trace is not None),
        with_firmware=trace_firmware,
        since=_moment(trace_from, "--trace-from") or 0,
        until=_moment(trace_until, "--trace-until"),
    )
    config = VmConfig(
        memory_bytes=parse_size(memory),
        mmu=parse_mmu(mmu),
        events=selection.recorded,
        shadow_switches=parse_switches(shadow),
        shadow_pages=parse_shadow_memory(shadow_memory),
        balloon_plan=parse_balloon(balloon, DEFAULTS.insns_per_second),
        disk_latency_us=parse_duration(disk_latency, what="disk latency"),
        disk_bytes_per_second=parse_size(disk_bandwidth, what="disk bandwidth"),
    )
    options = BootOptions(
        guest=guest,
        boot_disk=boot_disk,
        disks=tuple(disk or ()),
        config=config,
        append=append,
        modules=tuple(module or ()),
        insn_limit=None if cpu_limit is None else parse_count(cpu_limit, what="--cpu-limit"),
        time_limit=_time_limit(time_limit),
        trace=trace,
        selection=selection,
        tables=_check_tables(tables),
        as_json=json,
        raw_exit=raw_exit,
        no_reboot=no_reboot,
        shows_screen=vga,
        quiet=quiet,
    )

    def run() -> int:
        from emu.cli.boot import boot as run_boot

        return run_boot(options)

    return Request(options, run)


@app.command()
def host(
    scenario: Annotated[
        str | None,
        typer.Argument(help="A scenario that comes with emu, by name, or a TOML file.", autocompletion=completion.scenarios),
    ] = None,
    threads: Annotated[
        str, typer.Option(metavar="N", help="VMs that run at once; the result is the same with any number.")
    ] = "2",
    seconds: Annotated[str | None, typer.Option(metavar="TIME", help="End at this virtual time, such as 20s.")] = None,
    top: Annotated[
        bool, typer.Option("--top", help="Show a live table of the VMs (h: its keys), in place of what they print.")
    ] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row a VM and virtual second, as Parquet.")] = None,
    swap: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the swap areas in files there, not in the host's memory.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a snapshot at the end, and at Ctrl-C.")] = None,
    save_every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Write it each time that so much virtual time has passed, too.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="FILE", help="Go on from a snapshot, in place of a scenario.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check all invariants after each slice; slow.")] = False,
    sharing_report: Annotated[bool, typer.Option("--sharing-report", help="Print who shares what at the end.")] = False,
    page: Annotated[
        list[str] | None,
        typer.Option(metavar="VM:PPN", help="Print with whom a page is shared at the end, since when, what broke it."),
    ] = None,
    sharing_pages: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write that of each page that was ever shared, as Parquet.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a summary object as the last line of output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing of what VMs print, no summary.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the scenarios that come with emu.")] = False,
) -> Request:
    """Run many VMs on one machine, with more memory promised than there is."""
    from emu.cli import host_options

    if save_every is not None and save is None:
        raise UsageError("--save-every: there is no --save FILE")
    if resume is not None and scenario is not None:
        raise UsageError("a scenario and --resume exclude each other: the snapshot has its scenario")
    if scenario is None and resume is None and not list_only:
        raise UsageError("nothing to run: give a scenario, --resume or --list")
    if list_only:
        return Request(None, host_options.list_scenarios)
    options = host_options.HostOptions(
        scenario=None if scenario is None else host_options.find_scenario(scenario),
        scenario_file=None if scenario is None else host_options.scenario_file(scenario),
        resume=resume,
        save=save,
        save_every_us=_period(save_every, "--save-every"),
        seconds_us=_period(seconds, "--seconds"),
        threads=parse_number(threads, what="--threads"),
        top=top,
        log=log,
        swap_folder=swap,
        checks=check,
        sharing_report=sharing_report,
        sharing_pages=sharing_pages,
        pages=tuple(map(_page, page or ())),
        as_json=json,
        quiet=quiet,
    )
    for path, form, option in ((log, PARQUET, "--log"), (sharing_pages, PARQUET, "--sharing-pages"), (save, SNAPSHOT, "--save")):
        if path is not None:
            check_output(path, form, option)

    def run() -> int:
        from emu.cli.compiling import prepare_native_code

        prepare_native_code()
        from emu.cli.host import run as run_host

        return run_host(options)

    return Request(options, run)


def _period(text: str | None, what: str) -> int | None:
    """Microseconds of an option that is a time, at least a slice of the host's."""
    if text is None:
        return None
    period = parse_duration(text, what=what)
    if period < SHORTEST_US:
        raise UsageError(f"{what} {text}: a tenth of a second at least")
    return period


def _page(text: str) -> tuple[str, int]:
    """A VM's name and a page number, as in `vm-1:0x3f2`."""
    name, _, number = text.rpartition(":")
    try:
        page = int(number, 0)
    except ValueError:
        page = -1
    if not name or page < 0:
        raise UsageError(f"--page {text}: expected VM:PPN, such as vm-1:0x3f2")
    return name, page


@app.command()
def guests() -> Request:
    """List the guests that come with emu, and after them the disks for --boot-disk."""
    return Request(None, _list_guests)


def _list_guests() -> int:
    known = [(info, info.description) for info in images.guests()]
    known += [(info, f"{info.description} (--boot-disk)") for info in images.disks()]
    width = max(len(info.name) for info, _ in known)
    write_out("".join(f"{info.name:<{width}}  {description}\n" for info, description in known).encode())
    return 0


@app.command("test")
def run_suites(
    paths: Annotated[list[Path] | None, typer.Argument(help="Suites: folders or suite.toml files; none: emu's own.")] = None,
    mmu: Annotated[str, typer.Option(help="MMUs to run under, as in shadow,nested.")] = ",".join(Mmu),
    shadow: Annotated[str, typer.Option(metavar="SWITCHES", help="Optimizations of the shadow MMU to do without.")] = "",
    pattern: Annotated[str | None, typer.Option("-k", metavar="PATTERN", help="Only cases with this in their name.")] = None,
    workers: Annotated[str | None, typer.Option("-j", metavar="N", help="Processes at once; one a core if not given.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML to this file.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Rewrite golden files.")] = False,
    qemu: Annotated[bool, typer.Option("--qemu", help="Run each case in QEMU too, and compare.")] = False,
    allow_qemu_options: Annotated[
        bool, typer.Option("--allow-qemu-options", help="Pass on what a suite has for QEMU, which can read and write any file.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="End a run after so much time of this machine's clock, such as 60s.")
    ] = None,
    output_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="End a run that prints more than this; 4M if not given.")
    ] = None,
    tap: Annotated[bool, typer.Option("--tap", help="Print TAP instead of lines.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print an object a run instead of lines.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Name the runs, and do nothing.")] = False,
) -> Request:
    """Run suites of guest binaries."""
    from emu.cli.test import TestOptions, parse_mmus, parse_output_limit, parse_timeout, test as run_test  # noqa: I001

    if tap and json:
        raise UsageError("--tap and --json exclude each other")
    if junit is not None:
        check_output(junit, JUNIT, "--junit")
    options = TestOptions(
        paths=tuple(paths or ()),
        mmus=parse_mmus(mmu),
        shadow_switches=parse_switches(shadow),
        pattern=pattern,
        workers=None if workers is None else parse_number(workers, what="-j"),
        junit=junit,
        update=update,
        beside_qemu=qemu,
        allows_qemu_options=allow_qemu_options,
        timeout_us=parse_timeout(timeout),
        output_limit=parse_output_limit(output_limit),
        as_tap=tap,
        as_json=json,
        only_list=only_list,
    )
    return Request(options, lambda: run_test(options))


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Benchmarks to run; all if none is named.", autocompletion=completion.benchmarks),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print an object a row instead of a table.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Name the benchmarks, and do nothing.")] = False,
) -> Request:
    """Measure this machine: exits, guest code, start-up, beside QEMU and plain Unicorn."""
    for name in names or ():
        if name not in NAMES:
            raise unknown("benchmark", name, NAMES)
    if only_list:
        return Request(None, _list_benchmarks)
    chosen = tuple(names or NAMES)

    def run() -> int:
        from emu.cli.compiling import prepare_native_code

        prepare_native_code()
        from emu.cli.bench import bench as run_bench

        return run_bench(chosen, as_json=json)

    return Request((chosen, json), run)


def _list_benchmarks() -> int:
    write_out("".join(f"{name}\n" for name in NAMES).encode())
    return 0
