"""The cases of a `suite.toml`: every key with its meaning, and a refusal of all others (docs/suites.md for the user)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from emu import images
from emu.config import Mmu, VmConfig, parse_balloon, parse_size
from emu.errors import UsageError
from emu.events import CATALOGUE, GROUPS, Outcome
from emu.trace.counters import SHADOW_COUNTERS
from emu.vm import launch

FILE_NAME = "suite.toml"

DEFAULT_LIMIT = 1_000_000_000  # virtual time: 100 s, about what runners of test kernels give by the clock
MAX_EXIT_VALUE = 0xFFFF_FFFF
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
    limit: int = DEFAULT_LIMIT
    skip: str = ""  # why it is not run at all
    cases_from_serial: bool = False
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
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise UsageError(f"{path}: neither a file nor a folder")
        else:
            raise UsageError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def own_suite() -> Path:
    """The suite that comes with emu; raises UsageError when this emu was built without it."""
    path = images.FOLDER / "suite" / FILE_NAME
    if not path.exists():
        raise UsageError(f"{path}: the suite that comes with emu is missing: name a folder with a {FILE_NAME}")
    return path


def read_suite(path: Path) -> list[Case]:
    """The cases of a suite file, in its order; raises UsageError naming file, case and key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the suite ({(error.strerror or str(error)).lower()})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file ({error})") from error
    for key in tables:
        if key not in ("case", "defaults"):
            raise UsageError(f"{path}: unknown key '{key}': known are case, defaults")
    entries, defaults = tables.get("case", []), tables.get("defaults", {})
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise UsageError(f"{path}: expected at least one [[case]] table")
    if not isinstance(defaults, dict) or "name" in defaults:
        raise UsageError(f"{path}: expected [defaults] to be a table of a case's keys without name")
    cases = [_Reader(path, entry, defaults).case() for entry in entries]
    seen: set[str] = set()
    for case in cases:
        if case.name in seen:
            raise UsageError(f"{path}: two cases are called '{case.name}'")
        seen.add(case.name)
    return cases


class _Reader:
    """One table of a suite file."""

    def __init__(self, path: Path, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.path = path
        self.values = dict(defaults) | dict(entry)
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UsageError(f'{path}: a case without a name: expected name = "...", printable and on one line')
        self.name = name

    def fail(self, message: str) -> UsageError:
        return UsageError(f"{self.path}: case '{self.name}': {message}")

    def case(self) -> Case:
        self._refuse_unknown(self.values, (*CASE_KEYS, *EXPECTATION_KEYS), "")
        self._check_image()
        given = {CASE_KEYS[key][0]: CASE_KEYS[key][1](self, key, value) for key, value in self.values.items() if key in CASE_KEYS}
        if "boot_disk" in given:
            given |= {"image": given.pop("boot_disk"), "is_disk": True}
        overrides = given.pop("expect", {})
        plain = self._expectation(Expectation(), self.values)
        case = Case(suite=self.path, **given)
        self._check(case, plain)
        expect = {mmu: self._expectation(plain, overrides.get(mmu, {})) for mmu in Mmu}
        return replace(case, expect=expect)

    def _check_image(self) -> None:
        if "boot_disk" in self.values:
            for key in ("image", "append", "modules"):
                if key in self.values:
                    raise self.fail(f"boot_disk and {key} exclude each other")
        elif "image" not in self.values:
            raise self.fail(
                'no image: expected image = "FILE", or the name of a guest that comes with emu, or boot_disk = "FILE"'
            )

    def _expectation(self, base: Expectation, values: Mapping[str, Any]) -> Expectation:
        chosen = {key: EXPECTATION_KEYS[key](self, key, value) for key, value in values.items() if key in EXPECTATION_KEYS}
        if "exit" in chosen and chosen.get("outcome", Outcome.EXITED) is not Outcome.EXITED:
            raise self.fail(f'exit and outcome = "{chosen["outcome"]}" exclude each other')
        if "exit" in chosen:
            chosen["outcome"] = Outcome.EXITED
        return replace(base, **chosen)

    def _check(self, case: Case, plain: Expectation) -> None:
        if plain.known_failures and not plain.reason:
            raise self.fail("known_failures needs a reason")
        if plain.known_failures and not case.cases_from_serial:
            raise self.fail("known_failures names checks of the guest's own: it needs cases_from_serial = true")
        if not case.qemu and case.qemu_differs:
            raise self.fail("qemu = false and qemu_differs exclude each other")
        if case.qemu_checks and not case.qemu_differs:
            raise self.fail("qemu_checks needs qemu_differs, which says why")
        if case.qemu_checks and not case.cases_from_serial:
            raise self.fail("qemu_checks names checks of the guest's own: it needs cases_from_serial = true")
        if not case.qemu and not plain.reason:
            raise self.fail("qemu = false needs a reason")
        if not set(case.mmus) >= set(Mmu) and not plain.reason:
            raise self.fail("a case for one mmu only needs a reason")

    def _refuse_unknown(self, values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in values:
            if key not in known:
                raise self.fail(f"unknown key '{where}{key}': known are {', '.join(known)}")

    # ---- values ----

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.fail(f"{key}: expected a string")
        return value

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in values):
            raise self.fail(f"{key}: expected a string or a list of strings")
        return tuple(values)

    def flag(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.fail(f"{key}: expected true or false")
        return value

    def count(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.fail(f"{key}: expected a whole number")
        return value

    def limit(self, key: str, value: Any) -> int:
        if not self.count(key, value):
            raise self.fail(f"{key}: expected at least 1")
        return int(value)

    def exit_value(self, key: str, value: Any) -> int:
        if self.count(key, value) > MAX_EXIT_VALUE:
            raise self.fail(f"{key}: expected what fits in 32 bits")
        return int(value)

    def file(self, key: str, value: Any) -> Path:
        if "\0" in self.text(key, value) or not value:
            raise self.fail(f"{key}: expected the name of a file")
        return self.path.parent.joinpath(str(value))

    def image(self, key: str, value: Any) -> Path:
        """A file beside the suite, or a guest that comes with emu."""
        beside = self.file(key, value)
        if beside.exists() or "/" in value or "." in value:
            return beside
        return {info.name: info.path for info in images.guests()}.get(str(value), beside)

    def disk(self, key: str, value: Any) -> Path:
        """A disk image beside the suite, or one that comes with emu."""
        beside = self.file(key, value)
        if beside.exists() or "/" in value or "." in value:
            return beside
        return {info.name: info.path for info in images.disks()}.get(str(value), beside)

    def balloon(self, key: str, value: Any) -> str:
        """Targets of the balloon."""
        text = self.text(key, value)
        try:
            parse_balloon(text, VmConfig.insns_per_second)
        except UsageError as error:
            raise self.fail(f"{key}: {error}") from error
        return text

    def attached_disks(self, key: str, value: Any) -> tuple[Path | int, ...]:
        """One, or a list."""
        return tuple(self.attached_disk(key, item) for item in (value if isinstance(value, list) else [value]))

    def attached_disk(self, key: str, value: Any) -> Path | int:
        """A size, or a disk image beside the suite."""
        try:
            source = launch.disk_source(self.text(key, value))
        except UsageError as error:
            raise self.fail(f"{key}: {error}") from error
        return self.file(key, value) if isinstance(source, Path) else source

    def files(self, key: str, value: Any) -> tuple[Path, ...]:
        return tuple(self.file(key, item) for item in self.texts(key, value))

    def memory(self, key: str, value: Any) -> int:
        try:
            return parse_size(self.text(key, value))
        except UsageError as error:
            raise self.fail(str(error)) from error

    def mmus(self, key: str, value: Any) -> tuple[Mmu, ...]:
        names = self.texts(key, value)
        if not names or not set(names) <= set(Mmu):
            raise self.fail(f"{key}: expected a list of {', '.join(Mmu)}")
        return tuple(mmu for mmu in Mmu if mmu in names)

    def outcome(self, key: str, value: Any) -> Outcome:
        if value not in OUTCOMES:
            raise self.fail(f"{key}: expected one of {', '.join(OUTCOMES)}")
        return Outcome(value)

    def regex(self, key: str, value: Any) -> str:
        try:
            re.compile(self.text(key, value))
        except re.error as error:
            raise self.fail(f"{key}: not a regular expression ({error})") from error
        return str(value)

    def groups(self, key: str, value: Any) -> tuple[str, ...]:
        for name in self.texts(key, value):
            if name not in GROUPS:
                raise self.fail(f"{key}: unknown group '{name}': known are {', '.join(GROUPS)}")
        return self.texts(key, value)

    def bounds(self, key: str, value: Any) -> tuple[Bound, ...]:
        if not isinstance(value, dict):
            raise self.fail(f"{key}: expected a table such as {{ hidden_faults = {{ max = 40 }} }}")
        return tuple(self._bound(f"{key}.{name}", name, limits) for name, limits in value.items())

    def _bound(self, key: str, name: str, limits: Any) -> Bound:
        known = counter_names()
        if name not in known:
            raise self.fail(f"{key}: unknown event: known are {', '.join(known)}")
        if not isinstance(limits, dict) or not limits:
            raise self.fail(f"{key}: expected a table with min, max or equal")
        self._refuse_unknown(limits, ("min", "max", "equal"), f"{key}.")
        given = {limit: self.count(f"{key}.{limit}", value) for limit, value in limits.items()}
        if "equal" in given and len(given) > 1:
            raise self.fail(f"{key}: equal stands alone")
        equal = given.get("equal")
        return Bound(known[name], name, given.get("min", equal), given.get("max", equal))

    def overrides(self, key: str, value: Any) -> dict[Mmu, Mapping[str, Any]]:
        """`[case.expect.MMU]`: what is expected under one MMU only, with the reason."""
        if not isinstance(value, dict) or not set(value) <= set(Mmu):
            raise self.fail(f"{key}: expected tables [case.expect.MMU], MMU one of {', '.join(Mmu)}")
        for mmu, table in value.items():
            if not isinstance(table, dict):
                raise self.fail(f"{key}.{mmu}: expected a table")
            self._refuse_unknown(table, tuple(EXPECTATION_KEYS), f"{key}.{mmu}.")
            if not table.get("reason"):
                raise self.fail(f"{key}.{mmu}: a reason is needed")
        return {Mmu(mmu): table for mmu, table in value.items()}


ValueReader = Callable[[_Reader, str, Any], Any]
# Key of a case: the attribute of `Case` and how its value is read.
CASE_KEYS: dict[str, tuple[str, ValueReader]] = {
    "name": ("name", _Reader.text),
    "image": ("image", _Reader.image),
    "boot_disk": ("boot_disk", _Reader.disk),
    "append": ("append", _Reader.text),
    "modules": ("modules", _Reader.files),
    "disk": ("disks", _Reader.attached_disks),
    "balloon": ("balloon", _Reader.balloon),
    "memory": ("memory_bytes", _Reader.memory),
    "mmu": ("mmus", _Reader.mmus),
    "limit": ("limit", _Reader.limit),
    "skip": ("skip", _Reader.text),
    "cases_from_serial": ("cases_from_serial", _Reader.flag),
    "qemu": ("qemu", _Reader.flag),
    "qemu_differs": ("qemu_differs", _Reader.text),
    "qemu_checks": ("qemu_checks", _Reader.texts),
    "qemu_ignores": ("qemu_ignores", _Reader.texts),
    "qemu_options": ("qemu_options", _Reader.texts),
    "expect": ("expect", _Reader.overrides),
}
# Key of an expectation, which is also the attribute's name.
EXPECTATION_KEYS: dict[str, ValueReader] = {
    "outcome": _Reader.outcome,
    "exit": _Reader.exit_value,
    "serial": _Reader.texts,
    "serial_regex": _Reader.regex,
    "serial_exact": _Reader.text,
    "golden": _Reader.file,
    "events": _Reader.bounds,
    "trace": _Reader.file,
    "trace_events": _Reader.groups,
    "known_failures": _Reader.texts,
    "reason": _Reader.text,
}
assert set(EXPECTATION_KEYS) == {item.name for item in fields(Expectation)}
