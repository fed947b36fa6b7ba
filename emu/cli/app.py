"""Commands and options, with Typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu import events
from emu.cli.console import write_out
from emu.config import (
    SHADOW_SWITCHES,
    Mmu,
    VmConfig,
    parse_balloon,
    parse_duration,
    parse_shadow_memory,
    parse_size,
    parse_switches,
)
from emu.errors import UsageError
from emu.units import MIB, PAGE_BYTES

DEFAULTS = VmConfig()
SHORTEST_US = 100_000  # a slice of the host's virtual time
SHADOW_MEMORY = f"{DEFAULTS.shadow_pages * PAGE_BYTES // MIB}M"
OPTIONAL_VALUES = {"--trace": "-", "--tables": "end"}  # options whose value may be left out, and what that means

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A virtual machine monitor and a laboratory for virtual-machine memory management.",
)


def normalize(arguments: list[str]) -> list[str]:
    """Give options with an optional value their meaning without one: Typer knows only options with or without."""
    return [f"{item}={OPTIONAL_VALUES[item]}" if item in OPTIONAL_VALUES else item for item in arguments]


def _event_groups(names: str | None, *, traced: bool) -> frozenset[str]:
    if not traced:
        if names is not None:
            raise UsageError("--events selects what --trace shows: give --trace too")
        return frozenset()
    groups = [name.strip() for name in names.split(",")] if names is not None else list(events.GROUPS)
    for name in groups:
        if name not in events.GROUPS:
            raise UsageError(f"unknown event group '{name}': known are {', '.join(events.GROUPS)}")
    return frozenset(groups)


def _check_tables(at: str | None) -> str | None:
    if at is not None and at != OPTIONAL_VALUES["--tables"] and not (at.isascii() and at.isdigit()):
        raise UsageError(f"--tables={at}: expected a virtual time in instructions, or nothing for the end of the run")
    return at


@app.command()
def boot(
    guest: Annotated[str | None, typer.Argument(help="A guest that comes with emu, by name, or a multiboot kernel file.")] = None,
    memory: Annotated[str, typer.Option(help="Size of guest memory.")] = f"{DEFAULTS.memory_bytes // MIB}M",
    append: Annotated[str, typer.Option(help="Arguments on the kernel's command line.")] = "",
    module: Annotated[list[Path] | None, typer.Option(help="A file to pass as a boot module; repeatable.")] = None,
    boot_disk: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Boot from this disk image, in real mode, instead of a kernel.")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(metavar="FILE[,readonly]", help="Attach a disk: a raw image, or memory:SIZE for an empty one.")
    ] = None,
    disk_latency: Annotated[str, typer.Option(help="Virtual time of each disk command.")] = f"{DEFAULTS.disk_latency_us}us",
    disk_bandwidth: Annotated[
        str, typer.Option(help="Bytes that the disk transfers in a second of virtual time.")
    ] = f"{DEFAULTS.disk_bytes_per_second // MIB}M",
    balloon: Annotated[
        str, typer.Option(metavar="SIZE@TIME,...", help="Targets of the balloon at virtual times, such as 8M@10s,0@20s.")
    ] = "",
    mmu: Annotated[Mmu, typer.Option(help="How the guest's paging is virtualized.")] = DEFAULTS.mmu,
    shadow: Annotated[
        str,
        typer.Option(metavar="SWITCHES", help=f"Optimizations of the shadow MMU to do without: {', '.join(SHADOW_SWITCHES)}."),
    ] = "",
    shadow_memory: Annotated[str, typer.Option(help="Cap on shadow page tables; least recently used ones go.")] = SHADOW_MEMORY,
    cpu_limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many guest instructions.")] = None,
    trace: Annotated[str | None, typer.Option(metavar="[=FILE]", help="Trace events to standard error, or to a file.")] = None,
    select: Annotated[
        str | None, typer.Option("--events", help=f"Groups of events to trace: {', '.join(events.GROUPS)}.")
    ] = None,
    tables: Annotated[
        str | None, typer.Option(metavar="[=AT]", help="Print the page tables at the end, or at a virtual time.")
    ] = None,
    vga: Annotated[bool, typer.Option("--vga", help="Print the text on the screen at the end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary object as the last line of output.")] = False,
    raw_exit: Annotated[bool, typer.Option("--raw-exit", help="Exit value 0 ends with status 1, as in QEMU.")] = False,
    no_reboot: Annotated[bool, typer.Option("--no-reboot", help="A reset by the guest ends the run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary on standard error.")] = False,
) -> int:
    """Boot a guest kernel, or a disk. Its serial port is standard input and output."""
    from emu.cli.boot import BootOptions, boot as run_boot  # noqa: I001, PLC0415  (heavy: only this command needs it)

    if trace == "":
        raise UsageError("--trace=: a file name is missing; --trace alone traces to standard error")
    if boot_disk is not None and (guest is not None or append or module):
        raise UsageError("--boot-disk boots without a kernel: it takes no guest, --append or --module")
    if boot_disk is None and guest is None:
        raise UsageError("nothing to boot: give a guest, or --boot-disk FILE")
    config = VmConfig(
        memory_bytes=parse_size(memory),
        mmu=mmu,
        events=_event_groups(select, traced=trace is not None),
        shadow_switches=parse_switches(shadow),
        shadow_pages=parse_shadow_memory(shadow_memory),
        balloon_plan=parse_balloon(balloon, DEFAULTS.insns_per_second),
        disk_latency_us=parse_duration(disk_latency, what="disk latency"),
        disk_bytes_per_second=parse_size(disk_bandwidth, what="disk bandwidth"),
    )
    options = BootOptions(
        guest=guest,
        boot_disk=boot_disk,
        disk=disk,
        config=config,
        append=append,
        modules=tuple(module or ()),
        insn_limit=cpu_limit,
        trace=trace,
        tables=_check_tables(tables),
        as_json=json,
        raw_exit=raw_exit,
        no_reboot=no_reboot,
        shows_screen=vga,
        quiet=quiet,
    )
    return run_boot(options)


disk_app = typer.Typer(no_args_is_help=True, help="Make and look into disk images for the guest operating system.")
app.add_typer(disk_app, name="disk")
ImageFile = Annotated[Path, typer.Argument(metavar="FILE", help="The image.")]


@disk_app.command("make")
def disk_make(
    file: ImageFile,
    size: Annotated[str, typer.Option(help="Size of the file system.")] = "64M",
    swap: Annotated[str, typer.Option(help="Size of the swap partition; 0 for none.")] = "0",
    folder: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="Put the files of this folder into it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> int:
    """Make an image: a file system, and a swap partition if wanted."""
    from emu.cli import disk  # noqa: PLC0415

    files_bytes, swap_bytes = parse_size(size, what="file system size"), parse_size(swap, what="swap size")
    return disk.make(file, files_bytes, swap_bytes, folder, replace=force)


@disk_app.command("check")
def disk_check(file: ImageFile) -> int:
    """Check an image's file system, as a mount would find it; status 1 if something is wrong."""
    from emu.cli import disk  # noqa: PLC0415

    return disk.check(file)


@disk_app.command("list")
def disk_list(file: ImageFile) -> int:
    """List the files of an image."""
    from emu.cli import disk  # noqa: PLC0415

    return disk.list_files(file)


@disk_app.command("copy")
def disk_copy(
    file: ImageFile,
    path: Annotated[str, typer.Argument(help="The file in the image.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to.")],
) -> int:
    """Copy a file out of an image."""
    from emu.cli import disk  # noqa: PLC0415

    return disk.copy(file, path, out)


@app.command()
def host(
    scenario: Annotated[str | None, typer.Argument(help="A scenario that comes with emu, by name, or a TOML file.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="VMs that run at once; the result is the same with any number.")] = 2,
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
) -> int:
    """Run many VMs on one machine, with more memory promised than there is."""
    from emu.cli import host_options  # noqa: PLC0415
    from emu.cli.compiling import announce_compilation  # noqa: PLC0415

    if save_every is not None and save is None:
        raise UsageError("--save-every: there is no --save FILE")
    if resume is not None and scenario is not None:
        raise UsageError("a scenario and --resume exclude each other: the snapshot has its scenario")
    if scenario is None and resume is None and not list_only:
        raise UsageError("nothing to run: give a scenario, --resume or --list")
    if list_only:
        return host_options.list_scenarios()
    options = host_options.HostOptions(
        scenario=None if scenario is None else host_options.find_scenario(scenario),
        scenario_file=None if scenario is None else host_options.scenario_file(scenario),
        resume=resume,
        save=save,
        save_every_us=_period(save_every, "--save-every"),
        seconds_us=_period(seconds, "--seconds"),
        threads=threads,
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
    announce_compilation()
    from emu.cli.host import run  # noqa: PLC0415

    return run(options)


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
def guests() -> None:
    """List the guests that come with emu, and after them the disks for --boot-disk."""
    from emu import images  # noqa: PLC0415

    known = [(info, info.description) for info in images.guests()]
    known += [(info, f"{info.description} (--boot-disk)") for info in images.disks()]
    width = max(len(info.name) for info, _ in known)
    write_out("".join(f"{info.name:<{width}}  {description}\n" for info, description in known).encode())


@app.command("test")
def run_suites(
    paths: Annotated[list[Path] | None, typer.Argument(help="Suites: folders or suite.toml files; none: emu's own.")] = None,
    mmu: Annotated[str, typer.Option(help="MMUs to run under, as in shadow,nested.")] = ",".join(Mmu),
    shadow: Annotated[str, typer.Option(metavar="SWITCHES", help="Optimizations of the shadow MMU to do without.")] = "",
    pattern: Annotated[str | None, typer.Option("-k", metavar="PATTERN", help="Only cases with this in their name.")] = None,
    workers: Annotated[int | None, typer.Option("-j", min=1, help="Processes at once; one a core if not given.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Rewrite golden files.")] = False,
    qemu: Annotated[bool, typer.Option("--qemu", help="Run each case in QEMU too, and compare.")] = False,
    tap: Annotated[bool, typer.Option("--tap", help="Print TAP instead of lines.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print an object a run instead of lines.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Name the runs, and do nothing.")] = False,
) -> int:
    """Run suites of guest binaries."""
    from emu.cli.test import TestOptions, parse_mmus, test as run_test  # noqa: I001, PLC0415

    if tap and json:
        raise UsageError("--tap and --json exclude each other")
    options = TestOptions(
        paths=tuple(paths or ()),
        mmus=parse_mmus(mmu),
        shadow_switches=parse_switches(shadow),
        pattern=pattern,
        workers=workers,
        junit=junit,
        update=update,
        beside_qemu=qemu,
        as_tap=tap,
        as_json=json,
        only_list=only_list,
    )
    return run_test(options)


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; all if none is named.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print an object a row instead of a table.")] = False,
) -> int:
    """Measure this machine: exits, guest code, start-up, beside QEMU and plain Unicorn."""
    from emu.cli.compiling import announce_compilation  # noqa: PLC0415

    announce_compilation()
    from emu.cli.bench import bench as run_bench  # noqa: PLC0415

    return run_bench(names or [], as_json=json)
