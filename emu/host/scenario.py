"""Scenarios of `emu host`: which VMs run on how much memory, in TOML (docs/host.md has every key)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from emu.config import MICROSECONDS, Mmu, parse_duration, parse_size
from emu.errors import UsageError
from emu.suggestions import unknown
from emu.units import MIB

BUILTIN = Path(__file__).resolve().parent / "scenarios"
DEFAULT_RATE = 10_000_000  # instructions of a virtual second
SHARES_PER_MB = 10  # ESX's "normal"
MAX_VMS = 1000
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
    if not path.is_file():
        raise unknown("scenario", name, known, but="neither a file nor one of")
    return path


def read(path: Path) -> Scenario:
    """The scenario in a file; raises UsageError with a line that names file and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the scenario ({error})") from error
    return parse(text, str(path), path.stem)


def parse(text: str, where: str, name: str) -> Scenario:
    """The scenario in a text; `where` is what messages begin with."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}") from error
    return replace(_Reader(where).scenario(values, name), text=text)


class _Reader:
    """From TOML's values to a scenario."""

    def __init__(self, where: str) -> None:
        self._where = where

    def fail(self, key: str, message: str) -> UsageError:
        return UsageError(f"{self._where}: {key}: {message}")

    def scenario(self, values: Mapping[str, Any], name: str) -> Scenario:
        values = dict(values)
        vms, services = values.pop("vm", []), values.pop("services", {})
        if not isinstance(vms, list) or not isinstance(services, dict):
            raise self.fail("vm", "expected [[vm]] tables, and one [services]")
        chosen = self._read(values, SCENARIO_KEYS, "")
        if "memory" not in chosen:
            raise self.fail("memory", 'is missing: the machine\'s memory, such as "64M"')
        specs = [spec for number, table in enumerate(vms, 1) for spec in self._vms(table, f"vm {number}")]
        scenario = Scenario(
            **{"name": name, **chosen}, vms=tuple(specs), services=Services(**self._read(services, SERVICE_KEYS, "services."))
        )
        self._check(scenario)
        return scenario

    def _vms(self, table: Any, where: str) -> list[VmSpec]:
        if not isinstance(table, dict):
            raise self.fail(where, "expected a table")
        table = dict(table)
        events, count = table.pop("event", []), table.pop("count", 1)
        if type(count) is not int or not 1 <= count <= MAX_VMS:
            raise self.fail(f"{where}.count", f"expected a number from 1 to {MAX_VMS}")
        if not isinstance(events, list):
            raise self.fail(f"{where}.event", "expected [[vm.event]] tables")
        spec = VmSpec(**{"name": where.replace(" ", "-"), **self._read(table, VM_KEYS, f"{where}.")})
        spec = replace(spec, events=tuple(sorted((self._event(e, where) for e in events), key=lambda e: e.at_us)))
        if count == 1:
            return [spec]
        return [
            replace(spec, name=f"{spec.name}-{n}", append=spec.append.replace("{number}", str(n))) for n in range(1, count + 1)
        ]

    def _event(self, table: Any, where: str) -> Event:
        if not isinstance(table, dict):
            raise self.fail(f"{where}.event", "expected a table")
        table = dict(table)
        at = self._time(table.pop("at", None), f"{where}.event.at")
        kinds = [kind for kind in EVENT_KINDS if kind in table]
        if len(table) != 1 or len(kinds) != 1:
            raise self.fail(f"{where}.event", f"expected at, and one of {', '.join(EVENT_KINDS)}")
        kind, value = kinds[0], table[kinds[0]]
        if kind == "balloon":
            return Event(at, kind, self._size(value, f"{where}.event.balloon"))
        if kind == "shares":
            return Event(at, kind, self._number(value, f"{where}.event.shares"))
        if kind == "fault":
            if value not in FAULTS:
                raise self.fail(f"{where}.event.fault", f"expected one of {', '.join(FAULTS)}")
            return Event(at, kind, fault=value)
        if value is not True:
            raise self.fail(f"{where}.event.stop", "expected true")
        return Event(at, kind)

    def _check(self, scenario: Scenario) -> None:
        if not scenario.vms:
            raise self.fail("vm", "a scenario has at least one [[vm]]")
        seen: set[str] = set()
        for spec in scenario.vms:
            if spec.name in seen:
                raise self.fail("vm", f"two are called '{spec.name}'")
            seen.add(spec.name)
            if spec.min > spec.memory:
                raise self.fail(f"vm '{spec.name}'", "min is more than memory")
            if spec.stop_us is not None and spec.stop_us <= spec.start_us:
                raise self.fail(f"vm '{spec.name}'", "it stops before it starts")
        promised = sum(spec.min for spec in scenario.vms)
        if promised > scenario.memory:
            raise self.fail("vm", f"the mins are {promised >> 20}M together, the machine has {scenario.memory >> 20}M")
        if scenario.seconds_us is None and any(spec.stop_us is None and not spec.append for spec in scenario.vms):
            raise self.fail("seconds", "is missing: a VM without arguments runs for ever")

    def _read(self, values: Mapping[str, Any], keys: Mapping[str, tuple[str, str]], prefix: str) -> dict[str, Any]:
        """Fields by name from a table whose keys are known."""
        chosen = {}
        for key, value in values.items():
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f": did you mean '{near[0]}'?" if near else f": known are {', '.join(keys)}"
                raise self.fail(f"{prefix}{key}", f"unknown key{hint}")
            name, kind = keys[key]
            readers: dict[str, Callable[[Any, str], Any]] = {
                "size": self._size, "time": self._time, "number": self._number, "text": self._text, "switch": self._switch, "mmu": self._mmu,
            }  # fmt: skip
            chosen[name] = readers[kind](value, f"{prefix}{key}")
        return chosen

    def _size(self, value: Any, key: str) -> int:
        if not isinstance(value, str):
            raise self.fail(key, 'expected a size such as "32M"')
        try:
            return parse_size(value, what="size")
        except UsageError as error:
            raise self.fail(key, str(error)) from error

    def _time(self, value: Any, key: str) -> int:
        if not isinstance(value, str):
            raise self.fail(key, 'expected a time such as "20s" or "500ms"')
        try:
            return parse_duration(value, what="time")
        except UsageError as error:
            raise self.fail(key, str(error)) from error

    def _number(self, value: Any, key: str) -> int:
        if type(value) is not int or not 0 <= value < 1 << 40:
            raise self.fail(key, "expected a number, 0 or more")
        return value

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.isprintable():
            raise self.fail(key, "expected a text of one line")
        return value

    def _switch(self, value: Any, key: str) -> bool:
        if not isinstance(value, bool):
            raise self.fail(key, "expected true or false")
        return value

    def _mmu(self, value: Any, key: str) -> Mmu:
        if value not in list(Mmu):
            raise self.fail(key, f"expected {' or '.join(Mmu)}")
        return Mmu(value)


# Keys of each table: field, and what the value is.
SCENARIO_KEYS = {
    "name": ("name", "text"),
    "description": ("description", "text"),
    "memory": ("memory", "size"),
    "seed": ("seed", "number"),
    "seconds": ("seconds_us", "time"),
    "instructions_per_second": ("insns_per_second", "number"),
}
SERVICE_KEYS = {
    "scan_rate": ("scan_rate", "number"),
    "balloon": ("balloon", "switch"),
    "swap": ("swap", "switch"),
    "compress": ("compress", "switch"),
    "sample_period": ("sample_us", "time"),
    "rebalance": ("rebalance_us", "time"),
}
VM_KEYS = {
    "name": ("name", "text"),
    "guest": ("guest", "text"),
    "append": ("append", "text"),
    "memory": ("memory", "size"),
    "min": ("min", "size"),
    "shares": ("shares", "number"),
    "mmu": ("mmu", "mmu"),
    "disk": ("disk", "size"),
    "swap": ("swap", "size"),
    "start": ("start_us", "time"),
    "stop": ("stop_us", "time"),
}
assert {name for name, _ in VM_KEYS.values()} <= {item.name for item in fields(VmSpec)}
