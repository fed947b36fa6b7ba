"""The cases of suites, what is expected of them, and where suites are found (docs/suites.md for the user)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emu import images
from emu.config import Mmu, VmConfig
from emu.errors import UsageError
from emu.events import CATALOGUE, GROUPS, Outcome
from emu.trace.counters import SHADOW_COUNTERS
from emu.units import MIB

FILE_NAME = "suite.toml"

DEFAULT_LIMIT = 1_000_000_000  # virtual time: 100 s, about what runners of test kernels give by the clock
DEFAULT_OUTPUT_BYTES = 4 * MIB  # that a guest may print
OWN_FORM, KVM_FORM = "emu", "kvm-unit-tests"  # of guests' reports
OUTCOMES = tuple(o for o in Outcome if o not in (Outcome.INTERRUPTED, Outcome.PAUSED, Outcome.FAILED))
EXTRA_COUNTERS = ("exits", "pf_taken", "nested_faults", "shadow_pages", "nested_pages")
MMU_PLACE = "{mmu}"  # in the name of a golden file: the MMU's name


@dataclass(frozen=True)
class Bound:
    """How often something may be counted."""

    counter: str  # as the summary names it
    name: str  # as the suite names it
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Expectation:
    """How a run must end and what it must have left."""

    outcome: Outcome = Outcome.EXITED
    exit: int = 0
    serial: tuple[str, ...] = ()  # each is contained
    serial_regex: str | None = None  # found in the serial text, `^` and `$` at lines
    serial_exact: str | None = None
    screen: tuple[str, ...] = ()  # each is contained in the text on the VGA screen
    screen_regex: str | None = None  # found there
    golden: Path | None = None  # file of the whole serial text
    events: tuple[Bound, ...] = ()
    trace: Path | None = None  # file of the whole text trace
    trace_events: tuple[str, ...] = GROUPS
    known_failures: tuple[str, ...] = ()  # checks of the guest's own that must fail
    reason: str = ""  # why it is not what it should be


@dataclass(frozen=True)
class Case:
    """One guest with its arguments, to be run under each MMU."""

    suite: Path
    name: str
    image: Path  # a kernel, or a disk to boot from
    is_disk: bool = False
    append: str = ""
    modules: tuple[Path, ...] = ()
    disks: tuple[Path | int, ...] = ()  # attached: files, which are not changed, and empty ones of so many bytes
    balloon: str = ""  # targets at virtual times, as `emu boot --balloon` takes them
    memory_bytes: int = VmConfig.memory_bytes
    mmus: tuple[Mmu, ...] = tuple(Mmu)
    limit: int = DEFAULT_LIMIT  # of virtual time
    cpu_limit: int | None = None  # of retired instructions
    timeout_us: int | None = None  # of the host's time
    output_limit: int = DEFAULT_OUTPUT_BYTES  # bytes that the guest prints
    skip: str = ""  # why it is not run at all
    skip_exit: int | None = None  # exit value by which the guest says that it skipped everything
    cases_from_serial: str = ""  # form of the guest's own report; empty: it has none
    qemu: bool = True
    qemu_differs: str = ""  # why QEMU does something else, and which of the two is right
    qemu_checks: tuple[str, ...] = ()  # the checks of the guest's own that come out otherwise there; none: whatever differs
    qemu_ignores: tuple[str, ...] = ()  # shell patterns of lines that depend on time: not compared
    qemu_options: tuple[str, ...] = ()
    expect: Mapping[Mmu, Expectation] = field(default_factory=dict)


def counter_names() -> dict[str, str]:
    """Every name an event count may have in a suite, and the summary's counter it means."""
    names = {name: name for name in (*EXTRA_COUNTERS, *SHADOW_COUNTERS)}
    for info in CATALOGUE.values():
        label = info.label.replace("-", "_")
        names |= {info.counter: info.counter}
        names.setdefault(label, info.counter)
        names.setdefault(f"{label}s", info.counter)
    return names


def find_suites(paths: list[Path]) -> list[Path]:
    """The suite files at these paths, a folder's own and those below it; raises UsageError where there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(path.rglob(FILE_NAME))
            if not below:
                raise UsageError(f"{path}: no {FILE_NAME} in this folder or below it")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def own_suite() -> Path:
    """The suite that comes with emu; raises UsageError when this emu was built without it."""
    path = images.FOLDER / "suite" / FILE_NAME
    if not path.exists():
        raise UsageError(f"{path}: the suite that comes with emu is missing: name a folder with a {FILE_NAME}")
    return path
