# SPDX-License-Identifier: GPL-2.0-or-later
"""From a `suite.toml` to its cases: every key with its meaning, and a refusal of all others (docs/suites.md for the user)."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from emu import images, tomlfile
from emu.config import (
    MAX_MEMORY_BYTES,
    MICROSECONDS,
    MIN_MEMORY_BYTES,
    Mmu,
    VmConfig,
    parse_balloon,
    parse_count,
    parse_duration,
)
from emu.devices.ide import MAX_DRIVES
from emu.events import GROUPS, Outcome
from emu.images import GuestInfo
from emu.suite.cases import KVM_FORM, OUTCOMES, OWN_FORM, Bound, Case, Expectation, counter_names
from emu.tomlfile import Reader, Table, WrongValueError
from emu.tomlvalues import duration, number, one_of, shown, size, switch, text, texts
from emu.units import GIB, KIB, PAGE_BYTES
from emu.vm import launch
from emu.wording import quoted, suggestion

MAX_EXIT_VALUE = 0xFFFF_FFFF
MAX_LIMIT = 10**15  # instructions: three years of virtual time
MAX_TIMEOUT_US = 7 * 86_400 * MICROSECONDS
MAX_OUTPUT_BYTES = GIB
MAX_COUNT = 1 << 62  # of events
MAX_REGEX = 10_000  # characters
TIME_UNITS = ("us", "ms", "s")


Keys = Mapping[str, tuple[str, Reader]]  # key, attribute, and how its value is read


def read_suite(path: Path) -> list[Case]:
    """The cases of a suite file, in its order; raises UsageError with a line for each thing that is wrong: file, line, case and key."""
    document = tomlfile.read(path, "suite")
    document.refuse_unknown(("case", "defaults"))
    tables, defaults = document.tables("case", "[[case]]"), document.table("defaults", "[defaults]")
    if document.values.get("case", []) == []:
        document.note("expected at least one [[case]] table")
    if "name" in defaults.values:
        defaults.note("the name of a case has no default", "name")
    defaults.refuse_unknown((*CASE_KEYS, *EXPECTATION_KEYS))
    keys = _case_keys(path.parent), _expectation_keys(path.parent)
    cases = [_CaseReader(path, table, defaults, *keys).case() for table in tables]
    seen: set[str] = set()
    for table, case in zip(tables, cases, strict=True):
        if case is not None and case.name in seen:
            table.note(f"two cases are called {quoted(case.name)}", "name")
        seen.add(case.name if case else "")
    document.problems.raise_if_any()
    return [case for case in cases if case is not None]


class _CaseReader:
    """One table of a suite file, with the defaults behind it."""

    def __init__(self, path: Path, table: Table, defaults: Table, case_keys: Keys, expectation_keys: Keys) -> None:
        self.path, self.table, self.defaults = path, table, defaults
        self.case_keys, self.expectation_keys = case_keys, expectation_keys
        self.values = dict(defaults.values) | dict(table.values)

    def case(self) -> Case | None:
        """The case; None if it has no name or nothing to boot, which is noted."""
        self.table.refuse_unknown((*CASE_KEYS, *EXPECTATION_KEYS))
        if "name" not in self.table.values:
            self.table.note('a case without a name: expected name = "..."')
        self._check_image()
        given = self._fields(self.case_keys)
        plain = self._expectation(self.table, self._fields(self.expectation_keys), Expectation())
        overrides = self._overrides()
        if "boot_disk" in given:
            given |= {"image": given.pop("boot_disk"), "is_disk": True}
        if "name" not in given or "image" not in given:
            return None
        case = Case(suite=self.path, **given)
        self._check(case, plain)
        expect = {mmu: self._expectation(table, values, plain) for mmu, (table, values) in overrides.items()}
        return replace(case, expect=dict.fromkeys(Mmu, plain) | expect)

    def _source(self, key: str) -> Table:
        return self.table if key in self.table.values else self.defaults

    def _note(self, key: str, message: str) -> None:
        self._source(key).note(message, key)

    def _fields(self, keys: Keys) -> dict[str, Any]:
        read = {name: self._source(key).read(key, reader) for key, (name, reader) in keys.items() if key in self.values}
        return {name: value for name, value in read.items() if value is not None}

    def _check_image(self) -> None:
        if "boot_disk" in self.values:
            for key in ("image", "append", "modules"):
                if key in self.values:
                    self._note(key, f"boot_disk and {key} exclude each other")
        elif "image" not in self.values:
            self.table.note(
                'no image: expected image = "FILE", or the name of a guest that comes with emu, or boot_disk = "FILE"'
            )

    def _expectation(self, table: Table, chosen: dict[str, Any], base: Expectation) -> Expectation:
        if "exit" in chosen and chosen.get("outcome", Outcome.EXITED) is not Outcome.EXITED:
            table.note(f'exit and outcome = "{chosen["outcome"]}" exclude each other', "outcome")
        if "exit" in chosen:
            chosen = chosen | {"outcome": Outcome.EXITED}
        return replace(base, **chosen)

    def _overrides(self) -> dict[Mmu, tuple[Table, dict[str, Any]]]:
        """`[case.expect.MMU]`: what is expected under one MMU only, with the reason."""
        source = self._source("expect")
        expect = source.table("expect", f"{source.title} expect")
        expect.refuse_unknown(tuple(Mmu))
        found = {}
        for mmu in (mmu for mmu in Mmu if mmu in expect.values):
            table = expect.table(mmu, f"{source.title} expect.{mmu}")
            found[mmu] = (table, table.fields(self.expectation_keys))
            if not found[mmu][1].get("reason"):
                table.note("a reason is needed")
        return found

    def _check(self, case: Case, plain: Expectation) -> None:
        """What must hold between keys."""
        if plain.known_failures and not plain.reason:
            self._note("known_failures", "known_failures needs a reason")
        if not case.qemu and case.qemu_differs:
            self._note("qemu_differs", "qemu = false and qemu_differs exclude each other")
        if case.qemu_checks and not case.qemu_differs:
            self._note("qemu_checks", "qemu_checks needs qemu_differs, which says why")
        for key, names in (("known_failures", plain.known_failures), ("qemu_checks", case.qemu_checks)):
            if names and not case.cases_from_serial:
                self._note(key, f"{key} names checks of the guest's own: it needs cases_from_serial = true")
        if not case.qemu and not plain.reason:
            self._note("qemu", "qemu = false needs a reason")
        if case.is_disk + len(case.disks) > MAX_DRIVES:
            self._note("disk", f"{len(case.disks)} disks beside the boot disk: at most {MAX_DRIVES} can be attached in all")
        if not set(case.mmus) >= set(Mmu) and not plain.reason:
            self._note("mmu", "a case for one mmu only needs a reason")


# ---- values ----


def _case_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise WrongValueError(f"expected a name, printable and on one line, not {shown(value)}")
    return value


def _argument(value: Any) -> str:
    """What can be an argument of a program."""
    if "\0" in text(value):
        raise WrongValueError(f"expected no NUL in {shown(value)}")
    return str(value)


def _arguments(value: Any) -> tuple[str, ...]:
    return tuple(_argument(item) for item in texts(value))


def _file(folder: Path, value: Any) -> Path:
    """A file relative to the suite's folder."""
    name = text(value)
    if "\0" in name or not name:
        raise WrongValueError(f"expected the name of a file, not {shown(value)}")
    return folder / name


def _files(folder: Path, value: Any) -> tuple[Path, ...]:
    return tuple(_file(folder, item) for item in texts(value))


def _image(folder: Path, known: Callable[[], list[GuestInfo]], value: Any) -> Path:
    """A file beside the suite, or a guest or disk that comes with emu."""
    beside = _file(folder, value)
    if "/" in value or "." in value or _exists(beside):
        return beside
    return next((info.path for info in known() if info.name == value), beside)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _attached_disks(folder: Path, value: Any) -> tuple[Path | int, ...]:
    """One, or a list."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_DRIVES:
        raise WrongValueError(f"{len(items)} disks: at most {MAX_DRIVES} can be attached")
    return tuple(_attached_disk(folder, item) for item in items)


def _attached_disk(folder: Path, value: Any) -> Path | int:
    """A size, or a disk image beside the suite."""
    source = launch.disk_source(text(value))
    return _file(folder, value) if isinstance(source, Path) else source


def _balloon(value: Any) -> str:
    """Targets of the balloon."""
    parse_balloon(text(value), VmConfig.insns_per_second)
    return str(value)


def _limit(value: Any) -> int:
    """Virtual time: instructions, as a number or such as `5M`, or a time such as `30s`."""
    if not isinstance(value, str):
        return number(1, MAX_LIMIT)(value)
    if value.strip().lower().endswith(TIME_UNITS):
        found = parse_duration(value, what="limit") * VmConfig.insns_per_second // MICROSECONDS
    else:
        found = parse_count(value, what="limit")
    return _within_limit(found, value)


def _cpu_limit(value: Any) -> int:
    """Instructions, as a number or such as `5M`."""
    if not isinstance(value, str):
        return number(1, MAX_LIMIT)(value)
    return _within_limit(parse_count(value, what="limit"), value)


def _within_limit(found: int, value: str) -> int:
    if not 1 <= found <= MAX_LIMIT:
        raise WrongValueError(f"expected from 1 to {MAX_LIMIT} instructions, not {shown(value)}")
    return found


def _mmus(value: Any) -> tuple[Mmu, ...]:
    names = texts(value)
    if not names or not set(names) <= set(Mmu):
        raise WrongValueError(f"expected a list of {', '.join(Mmu)}, not {shown(value)}")
    return tuple(mmu for mmu in Mmu if mmu in names)


def _report_form(value: Any) -> str:
    """Whether the guest reports its own checks, and in which form."""
    if isinstance(value, bool):
        return OWN_FORM if value else ""
    if value != KVM_FORM:
        raise WrongValueError(f'expected true, false or "{KVM_FORM}", not {shown(value)}')
    return KVM_FORM


def _regex(value: Any) -> str:
    """A regular expression of Python's."""
    if len(text(value)) > MAX_REGEX:
        raise WrongValueError(f"not a regular expression of at most {MAX_REGEX} characters")
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's own taste
            re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise WrongValueError(f"not a regular expression ({error})") from error
    return str(value)


def _groups(value: Any) -> tuple[str, ...]:
    for name in texts(value):
        if name not in GROUPS:
            raise WrongValueError(f"unknown group {quoted(name)}{suggestion(name, GROUPS)}")
    return texts(value)


def _bounds(value: Any) -> tuple[Bound, ...]:
    if not isinstance(value, dict):
        raise WrongValueError(f"expected a table such as {{ hidden_faults = {{ max = 40 }} }}, not {shown(value)}")
    return tuple(_bound(name, limits) for name, limits in value.items())


def _bound(name: str, limits: Any) -> Bound:
    known = counter_names()
    if name not in known:
        hint = suggestion(name, known) or f"; known are {', '.join(dict.fromkeys(known.values()))}"
        raise WrongValueError(f"unknown event {quoted(name)}{hint}", name)
    if not isinstance(limits, dict) or not limits:
        raise WrongValueError(f"{name}: expected a table with min, max or equal, not {shown(limits)}", name)
    given = {limit: _count(name, limit, count) for limit, count in limits.items()}
    if "equal" in given and len(given) > 1:
        raise WrongValueError(f"{name}: equal stands alone", name)
    equal = given.get("equal")
    return Bound(known[name], name, given.get("min", equal), given.get("max", equal))


def _count(name: str, limit: str, value: Any) -> int:
    if limit not in ("min", "max", "equal"):
        raise WrongValueError(f"{name}: unknown key {quoted(limit)}{suggestion(limit, ('min', 'max', 'equal'))}", name, limit)
    try:
        return number(0, MAX_COUNT)(value)
    except WrongValueError as error:
        raise WrongValueError(f"{name}.{limit}: {error}", name, limit) from error


# ---- keys ----


def _case_keys(folder: Path) -> Keys:
    """Key of a case: the attribute of `Case` and how its value is read; files are relative to the suite's folder."""
    return {
        "name": ("name", _case_name),
        "image": ("image", partial(_image, folder, functools.cache(images.guests))),
        "boot_disk": ("boot_disk", partial(_image, folder, functools.cache(images.disks))),
        "append": ("append", _argument),
        "modules": ("modules", partial(_files, folder)),
        "disk": ("disks", partial(_attached_disks, folder)),
        "balloon": ("balloon", _balloon),
        "memory": ("memory_bytes", size(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES, unit=PAGE_BYTES, what="memory size")),
        "mmu": ("mmus", _mmus),
        "limit": ("limit", _limit),
        "cpu_limit": ("cpu_limit", _cpu_limit),
        "timeout": ("timeout_us", duration(MICROSECONDS // 10, MAX_TIMEOUT_US)),
        "output_limit": ("output_limit", size(KIB, MAX_OUTPUT_BYTES)),
        "skip": ("skip", text),
        "skip_exit": ("skip_exit", number(0, MAX_EXIT_VALUE)),
        "cases_from_serial": ("cases_from_serial", _report_form),
        "qemu": ("qemu", switch),
        "qemu_differs": ("qemu_differs", text),
        "qemu_checks": ("qemu_checks", texts),
        "qemu_ignores": ("qemu_ignores", texts),
        "qemu_options": ("qemu_options", _arguments),
    }


def _expectation_keys(folder: Path) -> Keys:
    """Key of an expectation, which is also the attribute's name."""
    readers: dict[str, Reader] = {
        "outcome": lambda value: Outcome(one_of(OUTCOMES)(value)),
        "exit": number(0, MAX_EXIT_VALUE),
        "serial": texts,
        "serial_regex": _regex,
        "serial_exact": text,
        "golden": partial(_file, folder),
        "screen": texts,
        "screen_regex": _regex,
        "events": _bounds,
        "trace": partial(_file, folder),
        "trace_events": _groups,
        "known_failures": texts,
        "reason": text,
    }
    return {key: (key, reader) for key, reader in readers.items()}


CASE_KEYS = (*_case_keys(Path()), "expect")
EXPECTATION_KEYS = tuple(_expectation_keys(Path()))
assert set(EXPECTATION_KEYS) == {item.name for item in fields(Expectation)}
