"""Scenarios of `emu host`: which VMs run on how much memory, in TOML (docs/host.md has every key)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from emu import tomlfile
from emu.config import MAX_MEMORY_BYTES, MICROSECONDS, MIN_MEMORY_BYTES, Mmu
from emu.diskimage.layout import BLOCK, FIRST_BLOCK
from emu.errors import UsageError
from emu.tomlfile import Document, Reader, Table, WrongValueError
from emu.tomlvalues import duration, line, number, one_of, shown, size, size_text, switch
from emu.units import GIB, MIB, PAGE_BYTES
from emu.wording import quoted, suggestion

BUILTIN = Path(__file__).resolve().parent / "scenarios"
DEFAULT_RATE = 10_000_000  # instructions of a virtual second
SHARES_PER_MB = 10  # ESX's "normal"
MAX_VMS = 1000
MAX_MACHINE_BYTES = 16 << 40  # what a PC of today can have
MIN_DISK_BYTES, MAX_DISK_BYTES = (
    MIB,
    2 * GIB,
)  # of a file system; of it, a swap partition and what lies before both (`emu.diskimage.make`)
MAX_SHARES = 1_000_000_000
MAX_SCAN_RATE = 1_000_000  # pages a virtual second: 4 GB
MIN_RATE, MAX_RATE = 1_000, 10_000_000_000  # instructions of a virtual second
SLICE_US = 100_000  # nothing on the host happens more often
YEAR_US = 366 * 86_400 * MICROSECONDS
MAX_SEED = (1 << 40) - 1
MAX_NAME = 100  # characters: names of files are made of it
EVENT_KINDS = ("shares", "balloon", "fault", "stop")
EXCEPTIONS = {"de": 0, "ud": 6, "gp": 13, "mc": 18}  # faults that are exceptions in the guest, by the manuals' mnemonics
FAULTS = (*EXCEPTIONS, "reset", "disk", "swap-write", "swap-read", "none")


@dataclass(frozen=True)
class Event:
    """Something that happens to a VM at a time."""

    at_us: int
    kind: str  # of EVENT_KINDS
    value: int = 0  # shares, or bytes in the balloon
    fault: str = ""  # of FAULTS


@dataclass(frozen=True)
class VmSpec:
    """A VM as the scenario has it."""

    name: str
    guest: str = "os-i386"
    append: str = ""
    memory: int = 32 * MIB  # max
    min: int = 0
    shares: int = 0  # 0: SHARES_PER_MB for each MB of max
    mmu: Mmu = Mmu.SHADOW
    disk: int = 0  # bytes of a file system made for it; 0: no disk
    swap: int = 0  # and of the guest's own swap partition
    start_us: int = 0
    stop_us: int | None = None
    events: tuple[Event, ...] = ()

    @property
    def all_shares(self) -> int:
        """Its shares, by default in proportion to its memory."""
        return self.shares or SHARES_PER_MB * self.memory // MIB


@dataclass(frozen=True)
class Services:
    """What the host does between slices."""

    scan_rate: int = 200  # pages a virtual second, over all VMs (ESX: Mem.ShareScanTotal); 0: no page sharing
    balloon: bool = True
    swap: bool = True
    compress: bool = False  # pages on swap areas
    sample_us: int = (
        30_000_000  # period in which working sets are sampled, of each VM's time (ESX: Mem.SamplePeriod); 0: they are not
    )
    rebalance_us: int = 1_000_000  # between two computations of targets


@dataclass(frozen=True)
class Scenario:
    """A machine, its VMs, and for how long they run."""

    name: str
    memory: int  # of the machine
    vms: tuple[VmSpec, ...]
    description: str = ""
    seed: int = 1
    seconds_us: int | None = None  # None: until every VM has ended
    insns_per_second: int = DEFAULT_RATE
    services: Services = field(default_factory=Services)
    text: str = ""  # that it was read from

    def instructions(self, microseconds: int) -> int:
        """A time in instructions."""
        return microseconds * self.insns_per_second // MICROSECONDS


def builtin() -> dict[str, Path]:
    """The scenarios that come with emu."""
    return {path.stem: path for path in sorted(BUILTIN.glob("*.toml"))}


def find(name: str) -> Path:
    """A scenario that comes with emu by its name, else a file; raises UsageError."""
    known = builtin()
    if name in known:
        return known[name]
    path = Path(name)
    if not path.exists():
        raise UsageError(f"unknown scenario {quoted(name)}: there is no such file{suggestion(name, known)}")
    return path


def read(path: Path) -> Scenario:
    """The scenario in a file; raises UsageError with a line for each thing that is wrong, which names file, line and key."""
    return _scenario(tomlfile.read(path, "scenario"), path.stem)


def parse(text: str, where: str, name: str) -> Scenario:
    """The scenario in a text; `where` is what messages begin with."""
    return _scenario(Document(text, where), name)


# ---- from tables to a scenario ----


def _scenario(document: Document, name: str) -> Scenario:
    chosen = document.fields(SCENARIO_KEYS, ("vm", "services"))
    services = document.table("services", "[services]").fields(SERVICE_KEYS)
    tables = document.tables("vm", "[[vm]]")
    specs = _all_vms(document, tables)
    if "memory" not in document.values:
        document.note('memory is missing: the machine\'s memory, such as "64M"')
    if not tables and document.values.get("vm", []) == []:
        document.note("a scenario has at least one [[vm]]")
    for table, spec in specs:
        _check(table, spec)
    _check_names(specs)
    _check_all(document, chosen, [spec for _, spec in specs])
    document.problems.raise_if_any()
    vms = tuple(spec for _, spec in specs)
    return Scenario(**{"name": name, **chosen}, vms=vms, services=Services(**services), text=document.text)


def _all_vms(document: Document, tables: Sequence[Table]) -> list[tuple[Table, VmSpec]]:
    specs: list[tuple[Table, VmSpec]] = []
    for table in tables:
        specs += [(table, spec) for spec in _vms(table)]
        if len(specs) > MAX_VMS:
            document.note(f"more than {MAX_VMS} VMs", *table.keys)
            break
    return specs


def _vms(table: Table) -> list[VmSpec]:
    """The VMs of a table: one, or `count`."""
    events = [event for below in table.tables("event", f"{table.title} [[vm.event]]") if (event := _event(below))]
    default = f"vm-{table.number + 1}"
    spec = VmSpec(**{"name": default, **table.fields(VM_KEYS, ("event", "count"))})
    spec = replace(spec, events=tuple(sorted(events, key=lambda event: event.at_us)))
    count = table.read("count", number(1, MAX_VMS), 1) or 1
    if count == 1:
        return [spec]
    return [replace(spec, name=f"{spec.name}-{n}", append=spec.append.replace("{number}", str(n))) for n in range(1, count + 1)]


def _event(table: Table) -> Event | None:
    table.refuse_unknown(("at", *EVENT_KINDS))
    kinds = [kind for kind in EVENT_KINDS if kind in table.values]
    if len(kinds) != 1 or "at" not in table.values:
        table.note(f"expected at, and one of {', '.join(EVENT_KINDS)}")
        return None
    (kind,) = kinds
    at, value = table.read("at", TIME), table.read(kind, EVENT_VALUES[kind])
    if at is None or value is None:
        return None
    return Event(at, kind, fault=value) if kind == "fault" else Event(at, kind, 0 if kind == "stop" else value)


def _check(table: Table, spec: VmSpec) -> None:
    """What must hold between the keys of a VM."""
    if spec.min > spec.memory:
        table.note(f"min is more than memory, which is {size_text(spec.memory)}", "min")
    if spec.stop_us is not None and spec.stop_us <= spec.start_us:
        table.note("it stops before it starts", "stop")
    if spec.swap and not spec.disk:
        table.note("swap is a part of the VM's disk: it needs disk too", "swap")
    if spec.disk + spec.swap > MAX_DISK_BYTES - FIRST_BLOCK * BLOCK:
        table.note(f"disk and swap are more than {size_text(MAX_DISK_BYTES)} together", "disk")
    for event in spec.events:
        if event.kind == "balloon" and event.value > spec.memory:
            table.note(f"event: a balloon of more than the VM's memory, which is {size_text(spec.memory)}", "event")


def _check_names(specs: Sequence[tuple[Table, VmSpec]]) -> None:
    seen: set[str] = set()
    for table, spec in specs:
        if spec.name in seen:
            table.note(f"two VMs are called {quoted(spec.name)}", "name")
        seen.add(spec.name)


def _check_all(document: Document, chosen: dict[str, Any], vms: Sequence[VmSpec]) -> None:
    """What must hold between the VMs and the machine."""
    promised = sum(spec.min for spec in vms)
    memory = chosen.get("memory")
    if memory is not None and promised > memory:
        document.note(f"the mins are {size_text(promised)} together, the machine has {size_text(memory)}", "memory")
    if "seconds" not in document.values and any(spec.stop_us is None and not spec.append for spec in vms):
        document.note("seconds is missing: a VM without arguments runs for ever")


def _name(value: Any) -> str:
    """The name of a VM: a part of files' names too."""
    text = line(value)
    if not text.strip() or len(text) > MAX_NAME or "/" in text:
        raise WrongValueError(f"expected a name of 1 to {MAX_NAME} characters without /, not {shown(value)}")
    return text


def _true(value: Any) -> bool:
    if value is not True:
        raise WrongValueError(f"expected true, not {shown(value)}")
    return True


def _mmu(value: Any) -> Mmu:
    return Mmu(one_of(tuple(Mmu))(value))


def _disk(value: Any) -> int:
    """A size of the file system; 0 for none."""
    return size(0 if value == "0" else MIN_DISK_BYTES, MAX_DISK_BYTES, unit=BLOCK)(value)


TIME = duration(0, YEAR_US)
# Keys of each table: field, and what the value is.
SCENARIO_KEYS: dict[str, tuple[str, Reader]] = {
    "name": ("name", line),
    "description": ("description", line),
    "memory": ("memory", size(MIN_MEMORY_BYTES, MAX_MACHINE_BYTES, unit=PAGE_BYTES)),
    "seed": ("seed", number(0, MAX_SEED)),
    "seconds": ("seconds_us", duration(SLICE_US, YEAR_US)),
    "instructions_per_second": ("insns_per_second", number(MIN_RATE, MAX_RATE)),
}
SERVICE_KEYS: dict[str, tuple[str, Reader]] = {
    "scan_rate": ("scan_rate", number(0, MAX_SCAN_RATE)),
    "balloon": ("balloon", switch),
    "swap": ("swap", switch),
    "compress": ("compress", switch),
    "sample_period": ("sample_us", duration(SLICE_US, YEAR_US, or_zero=True)),
    "rebalance": ("rebalance_us", duration(SLICE_US, YEAR_US)),
}
VM_KEYS: dict[str, tuple[str, Reader]] = {
    "name": ("name", _name),
    "guest": ("guest", line),
    "append": ("append", line),
    "memory": ("memory", size(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES, unit=PAGE_BYTES)),
    "min": ("min", size(0, MAX_MEMORY_BYTES)),
    "shares": ("shares", number(1, MAX_SHARES)),
    "mmu": ("mmu", _mmu),
    "disk": ("disk", _disk),
    "swap": ("swap", size(0, MAX_DISK_BYTES, unit=BLOCK)),
    "start": ("start_us", TIME),
    "stop": ("stop_us", TIME),
}
EVENT_VALUES: dict[str, Reader] = {
    "shares": number(0, MAX_SHARES),
    "balloon": size(0, MAX_MEMORY_BYTES),
    "fault": one_of(FAULTS),
    "stop": _true,
}
assert tuple(EVENT_VALUES) == EVENT_KINDS
assert {name for name, _ in VM_KEYS.values()} <= {item.name for item in fields(VmSpec)}
