"""A job from start to result: run, judge, and where it failed run again with events to say what came before."""

from __future__ import annotations

import fnmatch
from dataclasses import replace

from emu import events
from emu.errors import EmuError
from emu.suite import judge, qemu
from emu.suite.cases import Expectation
from emu.suite.protocol import Check, read_checks
from emu.suite.results import FAIL, PASS, SKIP, Job, Result
from emu.suite.run import TAIL_EVENTS, Finished, run_guest
from emu.vm import launch


def execute(job: Job) -> Result:
    """The result of a job. What the guest does wrong, and images that cannot be booted, are failures of the case."""
    if job.case.skip:
        return Result(job, SKIP, [job.case.skip])
    try:
        return _beside_qemu(job) if job.beside_qemu else _alone(job)
    except EmuError as error:
        return Result(job, FAIL, [str(error)])


def _run(job: Job, groups: frozenset[str], last_events: int | None = None) -> Finished:
    case = job.case
    what = launch.Boot(case.image, case.append, case.modules, case.is_disk)
    return run_guest(
        what,
        memory_bytes=case.memory_bytes,
        mmu=job.mmu,
        limit=case.limit,
        groups=groups,
        last_events=last_events,
        switches=job.switches,
        disks=case.disks,
        balloon=case.balloon,
    )


def _alone(job: Job) -> Result:
    case, expected = job.case, job.case.expect[job.mmu]
    run = _run(job, frozenset(expected.trace_events) if expected.trace else frozenset())
    checks, problems = read_checks(run.serial) if case.cases_from_serial else ([], [])
    result = Result(job, checks=checks, instructions=run.instructions, serial=run.serial)
    result.reasons = [f"report: {problem}" for problem in problems] + judge.differences(expected, run, checks)
    _compare_goldens(job, expected, run, result)
    result.checks = [_as_counted(check, expected) for check in checks]
    if result.reasons:
        result.status = FAIL
        result.trace_tail = _trace_tail(job)
    elif checks and all(check.status == SKIP for check in checks):
        result.status, result.reasons = SKIP, ["every check was skipped"]
    return result


def _as_counted(check: Check, expected: Expectation) -> Check:
    """A failure that is known counts as a pass: what was expected came."""
    if check.status == FAIL and check.name in expected.known_failures:
        return replace(check, status=PASS, detail=f"known failure: {expected.reason}")
    return check


def _compare_goldens(job: Job, expected: Expectation, run: Finished, result: Result) -> None:
    texts = []
    if expected.golden:
        texts.append((expected.golden, "serial", run.serial))
    if expected.trace:
        from emu.trace import text

        texts.append((expected.trace, "trace", "".join(line + "\n" for line in text.lines(run.events))))
    for named, what, seen in texts:
        path = judge.golden_path(named, str(job.mmu))
        if job.update:
            result.goldens[path] = seen
        elif difference := judge.golden_difference(path, what, seen):
            result.reasons.append(difference)


def _trace_tail(job: Job) -> list[str]:
    """The last events of a failed run. A run is the same each time, so it is run again with the ring on."""
    from emu.trace import text

    return list(text.lines(_run(job, frozenset(events.GROUPS), TAIL_EVENTS).events))


def _beside_qemu(job: Job) -> Result:
    case = job.case
    if not case.qemu:
        return Result(job, SKIP, [f"not in QEMU: {case.expect[job.mmu].reason}"])
    ours = _run(job, frozenset())
    theirs = qemu.run(case, ours.outcome)
    result = Result(job, instructions=ours.instructions, serial=ours.serial)
    found = _qemu_differences(ours, theirs, case.qemu_ignores)
    if case.qemu_checks:
        result.reasons = _unexpected_checks(case.qemu_checks, ours, theirs)
    elif case.qemu_differs and not found:
        result.reasons = [f"QEMU: expected to differ ({case.qemu_differs}), it does not"]
    elif not case.qemu_differs:
        result.reasons = found
    if result.reasons:
        result.status = FAIL
    elif case.qemu_differs:
        result.note = f"differs from QEMU as known: {case.qemu_differs}"
    return result


def _unexpected_checks(known: tuple[str, ...], ours: Finished, theirs: qemu.QemuRun) -> list[str]:
    """Checks that differ and are not known to, and those that do no more; one that QEMU did not come to differs."""
    here, there = ({check.name: check for check in read_checks(serial)[0]} for serial in (ours.serial, theirs.serial))
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
        seen = qemu.describe(theirs.status, theirs.limit_s)
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
