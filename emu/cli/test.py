"""`emu test`: suites of guest binaries."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from emu.cli.compiling import prepare_native_code
from emu.cli.console import write_out
from emu.config import Mmu, VmConfig, parse_duration, parse_size
from emu.errors import FileErrors, OutputError, UsageError
from emu.machine.native import CACHE
from emu.suite import cases as suite_cases
from emu.suite import qemu, report
from emu.suite.cases import Case
from emu.suite.goldens import check_can_update, write_goldens
from emu.suite.pool import Pool
from emu.suite.reading import read_suite
from emu.suite.results import FAIL, Job, Result, jobs_of
from emu.suite.runner import matches, run_jobs
from emu.wording import one_line, suggestion, unknown

STATUS_FAILED = 1
STATUS_INTERRUPTED = 130


@dataclass(frozen=True)
class TestOptions:
    """What the command line asks for."""

    paths: tuple[Path, ...]
    mmus: tuple[Mmu, ...]
    shadow_switches: frozenset[str]
    pattern: str | None
    workers: int | None  # None: one a core
    junit: Path | None
    update: bool
    beside_qemu: bool
    allows_qemu_options: bool
    timeout_us: int | None  # of the host's time, for a run
    output_limit: int | None  # bytes of a run
    as_tap: bool
    as_json: bool
    only_list: bool


def parse_mmus(text: str) -> tuple[Mmu, ...]:
    """The MMUs of `shadow,nested`; raises UsageError for anything else."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in tuple(Mmu):
            raise unknown("MMU", name, Mmu)
    return tuple(mmu for mmu in Mmu if mmu in names)


def parse_timeout(text: str | None) -> int | None:
    """Microseconds of `--timeout`."""
    if text is None:
        return None
    found = parse_duration(text, what="--timeout")
    if not found:
        raise UsageError(f"--timeout {text}: expected more than nothing")
    return found


def parse_output_limit(text: str | None) -> int | None:
    """Bytes of `--output-limit`."""
    return None if text is None else parse_size(text, what="--output-limit")


def test(options: TestOptions) -> int:
    """Run the chosen cases and report; the exit status of the command."""
    VmConfig(shadow_switches=options.shadow_switches)  # refuses unknown ones
    jobs = _chosen_jobs(options)
    if options.only_list:
        _say("".join(f"{job.title}\n" for job in jobs))
        return 0
    if options.update:
        check_can_update(job.case for job in jobs)
    if options.beside_qemu and not qemu.is_installed():
        raise UsageError(f"--qemu: {qemu.PROGRAM} is not installed")
    _check_can_write(options.junit)
    results, interrupted = _run(options, jobs)
    order = {job.title + str(job.case.suite): number for number, job in enumerate(jobs)}
    results.sort(key=lambda result: order[result.job.title + str(result.job.case.suite)])
    updated = [one_line(line) for line in write_goldens(results)]
    _report(options, results, updated)
    if interrupted:
        _complain(f"emu: interrupted: {len(jobs) - len(results)} of {len(jobs)} runs were not done\n")
        return STATUS_INTERRUPTED
    passed, failed, _ = report.counts(results)
    return STATUS_FAILED if failed or not passed else 0


def _chosen_jobs(options: TestOptions) -> list[Job]:
    files = suite_cases.find_suites(list(options.paths)) if options.paths else [suite_cases.own_suite()]
    known = _read_all(files)
    chosen = [case for case in known if matches(case, options.pattern)]
    if options.pattern and not chosen:
        near = suggestion(options.pattern, [case.name for case in known])
        raise UsageError(f"no case matches '{options.pattern}'{near if 'did you mean' in near else ''}")
    jobs = jobs_of(
        chosen,
        options.mmus,
        beside_qemu=options.beside_qemu,
        update=options.update,
        switches=options.shadow_switches,
        timeout_us=options.timeout_us,
        output_limit=options.output_limit,
        allows_qemu_options=options.allows_qemu_options,
    )
    if not jobs:
        raise UsageError("no case for this MMU")
    return jobs


def _read_all(files: list[Path]) -> list[Case]:
    """The cases of all suites; raises FileErrors with what is wrong with any of them."""
    cases: list[Case] = []
    problems: list[str] = []
    for file in files:
        try:
            cases += read_suite(file)
        except UsageError as error:
            problems += error.lines
    if problems:
        raise FileErrors(problems)
    return cases


def _run(options: TestOptions, jobs: list[Job]) -> tuple[list[Result], bool]:
    """Results in the order in which they came, and whether Ctrl-C ended it."""
    if not CACHE.is_complete():  # in this process, which can show it
        prepare_native_code()
    results: list[Result] = []
    workers = min(options.workers or len(os.sched_getaffinity(0)), len(jobs))
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("running", total=len(jobs))
        try:
            with Pool(workers) as pool:
                for result in run_jobs(pool, jobs):
                    results.append(result)
                    if not (options.as_tap or options.as_json):
                        _say(report.result_line(result) + "\n", progress if sys.stdout.isatty() else None)
                    progress.advance(task)
        except KeyboardInterrupt:
            return results, True
    return results, False


def _report(options: TestOptions, results: list[Result], updated: list[str]) -> None:
    if options.junit is not None:
        try:
            options.junit.write_bytes(report.junit(results))
        except OSError as error:
            raise _cannot_write(options.junit, error) from error
    if options.as_tap:
        _say(report.tap(results))
    elif options.as_json:
        _say("".join(json.dumps(_object(result)) + "\n" for result in results))
    else:
        failed = [report.explanation(result) + "\n" for result in results if result.status == FAIL]
        _say("".join(f"{line}\n" for line in updated) + "".join("\n" + text for text in failed))
        _say(f"{chr(10) if failed else ''}{report.closing_line(results)}\n")


def _object(result: Result) -> dict[str, object]:
    return {
        "suite": str(result.job.case.suite),
        "case": result.job.case.name,
        "where": result.job.where,
        "status": result.status,
        "reasons": result.reasons,
        "note": result.note,
        "instructions": result.instructions,
        "checks": [{"status": check.status, "name": check.name, "detail": check.detail} for check in result.checks],
    }


def _check_can_write(path: Path | None) -> None:
    """Say now, not after the run, that a file cannot be written."""
    if path is not None:
        try:
            path.open("ab").close()
        except OSError as error:
            raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot write the results ({(error.strerror or str(error)).lower()})")


def _say(text: str, progress: Progress | None = None) -> None:
    """To standard output; above the progress display if there is one."""
    if progress is not None and not progress.disable:
        progress.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
    elif text:
        write_out(text.encode("utf-8", "backslashreplace"))


def _complain(text: str) -> None:
    if sys.stderr is not None:
        print(text, end="", file=sys.stderr, flush=True)
