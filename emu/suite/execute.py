"""A job from start to result: run, and judge. One run: its last events are at hand if it failed."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from emu import images
from emu.config import MICROSECONDS
from emu.errors import EmuError
from emu.events import Outcome
from emu.regular import not_regular
from emu.suite import judge, qemu
from emu.suite.cases import Case, Expectation
from emu.suite.goldens import golden_path
from emu.suite.protocol import Check, read_checks
from emu.suite.results import FAIL, PASS, SKIP, Job, Result
from emu.suite.run import TAIL_EVENTS, Finished, Limits, run_guest
from emu.vm import launch
from emu.wording import cut, exit_value, suggestion

MOST_REASONS = 50
MOST_REASON = 20_000  # characters: a difference is of several lines


def execute(job: Job) -> Result:
    """The result of a job. What the guest does wrong, and images that cannot be booted, are failures of the case."""
    if job.case.skip:
        return Result(job, SKIP, [job.case.skip])
    start = time.perf_counter()
    try:
        _check_files(job.case)
        result = _beside_qemu(job) if job.beside_qemu else _alone(job)
    except EmuError as error:
        result = Result(job, FAIL, list(error.lines))
    result.seconds = time.perf_counter() - start
    result.reasons = _bounded(result.reasons)
    return result


def _bounded(reasons: list[str]) -> list[str]:
    """As many reasons as anyone reads; a guest can make millions."""
    shown = [cut(reason, MOST_REASON) for reason in reasons[:MOST_REASONS]]
    return shown + ([f"{len(reasons) - MOST_REASONS:,} more reasons"] if len(reasons) > MOST_REASONS else [])


def _check_files(case: Case) -> None:
    """Raise EmuError for what a guest is not booted from: pipes would be waited for, devices read for ever."""
    for path in (case.image, *case.modules, *(disk for disk in case.disks if isinstance(disk, Path))):
        try:
            problem = not_regular(path.stat().st_mode)
        except OSError:
            problem = ""  # whoever opens it says what is wrong
            if path is case.image and not path.suffix:
                known = images.disks() if case.is_disk else images.guests()
                near = suggestion(path.name, [info.name for info in known])
                problem = f"no such file, and no guest of that name comes with emu{near}" if "did you mean" in near else ""
        if problem:
            raise EmuError(f"{path}: {problem}")


def limits_of(job: Job) -> Limits:
    """A case's limits; of those that the user gave too, the narrower ones hold."""
    case = job.case
    times = [time for time in (case.timeout_us, job.timeout_us) if time is not None]
    outputs = [size for size in (case.output_limit, job.output_limit) if size is not None]
    return Limits(case.limit, case.cpu_limit, min(outputs), min(times) / MICROSECONDS if times else None)


def _run(job: Job, groups: frozenset[str], last_events: int = 0) -> Finished:
    case = job.case
    what = launch.Boot(case.image, case.append, case.modules, case.is_disk)
    return run_guest(
        what,
        memory_bytes=case.memory_bytes,
        mmu=job.mmu,
        limits=limits_of(job),
        groups=groups,
        last_events=last_events,
        switches=job.switches,
        disks=case.disks,
        balloon=case.balloon,
    )


def _alone(job: Job) -> Result:
    from emu.trace import text

    case, expected = job.case, job.case.expect[job.mmu]
    run = _run(job, frozenset(expected.trace_events) if expected.trace else frozenset(), TAIL_EVENTS)
    checks, problems = read_checks(run.serial, case.cases_from_serial) if case.cases_from_serial else ([], [])
    result = Result.of_run(job, run)
    if _says_skipped(case, run):
        result.status, result.checks = SKIP, [check for check in checks if check.status == SKIP]
        result.reasons = [f"the guest ended with value {exit_value(run.value)}, which says so"]
        return result
    result.reasons = [f"report: {problem}" for problem in problems] + judge.differences(expected, run, checks)
    _compare_goldens(job, expected, run, result)
    result.checks = [_as_counted(check, expected) for check in checks]
    if result.reasons:
        result.status = FAIL
        result.trace_tail = list(text.lines(run.last_events))
    elif checks and all(check.status == SKIP for check in checks):
        result.status, result.reasons = SKIP, ["every check was skipped"]
    return result


def _says_skipped(case: Case, run: Finished) -> bool:
    return case.skip_exit is not None and (run.outcome, run.value) == (Outcome.EXITED, case.skip_exit)


def _as_counted(check: Check, expected: Expectation) -> Check:
    """A failure that is known counts as a pass: what was expected came."""
    if check.status == FAIL and check.name in expected.known_failures:
        return replace(check, status=PASS, detail=f"known failure: {expected.reason}")
    return check


def _compare_goldens(job: Job, expected: Expectation, run: Finished, result: Result) -> None:
    for named, what, seen in _texts(expected, run):
        path = golden_path(named, str(job.mmu))
        if job.update and not run.cut_off:
            result.goldens[path] = seen
        elif difference := judge.golden_difference(path, what, seen):
            result.reasons.append(difference)


def _texts(expected: Expectation, run: Finished) -> Iterable[tuple[Path, str, str]]:
    if expected.golden:
        yield expected.golden, "serial", run.serial
    if expected.trace:
        from emu.trace import text

        yield expected.trace, "trace", "".join(line + "\n" for line in text.lines(run.events))


def _beside_qemu(job: Job) -> Result:
    case = job.case
    if not case.qemu:
        return Result(job, SKIP, [f"not in QEMU: {case.expect[job.mmu].reason}"])
    if case.qemu_options and not job.allows_qemu_options:
        return Result(job, SKIP, ["it has options for QEMU, which can read and write any file: --allow-qemu-options lets it"])
    ours = _run(job, frozenset())
    limits = limits_of(job)
    theirs = qemu.run(case, ours.outcome, limits.output_bytes, limits.seconds)
    result = Result.of_run(job, ours)
    found = _qemu_differences(ours, theirs, case.qemu_ignores)
    if case.qemu_checks:
        result.reasons = _unexpected_checks(case.qemu_checks, case.cases_from_serial, ours, theirs)
    elif case.qemu_differs and not found:
        result.reasons = [f"QEMU: expected to differ ({case.qemu_differs}), it does not"]
    elif not case.qemu_differs:
        result.reasons = found
    if result.reasons:
        result.status = FAIL
    elif case.qemu_differs:
        result.note = f"differs from QEMU as known: {case.qemu_differs}"
    return result


def _unexpected_checks(known: tuple[str, ...], form: str, ours: Finished, theirs: qemu.QemuRun) -> list[str]:
    """Checks that differ and are not known to, and those that do no more; one that QEMU did not come to differs."""
    here, there = ({check.name: check for check in read_checks(serial, form)[0]} for serial in (ours.serial, theirs.serial))
    found, unused = [], set(known)
    for name in there | here:
        patterns = {pattern for pattern in known if fnmatch.fnmatchcase(name, pattern)}
        if here.get(name) == there.get(name):
            found += [f"QEMU: check {name}: expected to differ, it does not"] if patterns else []
        elif not patterns:
            found.append(f"QEMU: check {name}: emu {_said(here.get(name))}, QEMU {_said(there.get(name))}")
        unused -= patterns
    return found + [f"QEMU: check {pattern}: expected to differ, the guest has none" for pattern in known if pattern in unused]


def _said(check: Check | None) -> str:
    """What a guest reported of a check, on a line."""
    if check is None:
        return "did not come to it"
    return f"{check.status}: {check.detail}" if check.detail else check.status


def _qemu_differences(ours: Finished, theirs: qemu.QemuRun, ignored: tuple[str, ...]) -> list[str]:
    found = []
    if qemu.expected_status(ours) != theirs.status:
        seen = qemu.describe(theirs)
        found.append(f"QEMU: emu {judge.ending(ours.outcome, ours.value, ours.why)}, QEMU {seen}")
    here, there = (_without_lines(run.serial, ignored) for run in (ours, theirs))
    if here != there:
        found.append(f"QEMU: serial text (- QEMU, + emu): {judge.first_difference(there, here)}")
    return found


def _without_lines(serial: str, patterns: tuple[str, ...]) -> str:
    if not patterns:
        return serial
    lines = serial.splitlines(keepends=True)
    return "".join(line for line in lines if not any(fnmatch.fnmatchcase(line.rstrip("\r\n"), pattern) for pattern in patterns))
