"""Results as text: lines, explanations, TAP and JUnit XML. All pure: the caller writes them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from emu.suite.results import FAIL, PASS, SKIP, Result, left_out_line
from emu.wording import cut, one_line, printable

SERIAL_LINES = 20  # of a failed run's serial text
MOST_RESULT_LINE = 1000  # characters
FIRST_LINES = 5  # of them, where its middle is left out


def result_line(result: Result) -> str:
    """The line of a case that has ended."""
    parts = [f"{result.instructions:,} instructions"] if result.instructions else []
    if result.checks:
        parts.insert(0, f"{len(result.checks)} checks")
    if result.note or (result.status == SKIP and result.reasons):
        parts.append(result.note or result.reasons[0])
    tail = f": {', '.join(parts)}" if parts else ""
    return one_line(cut(f"{result.status} {result.job.title}{tail}", MOST_RESULT_LINE))


def explanation(result: Result) -> str:
    """All about a failure: what was expected and seen, the last serial lines, the last events."""
    lines = [f"FAIL {result.job.title}", f"  {one_line(str(result.job.case.suite))}", *_indented(result.reasons)]
    lines += _serial_lines(result)
    if result.trace_tail:
        lines += [f"  last {len(result.trace_tail)} events before the end:", *_indented(result.trace_tail, 4)]
    return printable("\n".join(lines))


def _serial_lines(result: Result) -> list[str]:
    """What the guest printed, or the part of it that tells most."""
    lines = result.serial.splitlines()
    if result.left_out:
        marker = next(line for line in lines if line == left_out_line(result.left_out))
        shown = [*lines[:FIRST_LINES], marker, *lines[FIRST_LINES - SERIAL_LINES :]]
        return ["  serial, first and last lines:", *_indented(shown, 4)]
    title = "  serial, last lines:" if len(lines) > SERIAL_LINES else "  serial:"
    return [title, *_indented(lines[-SERIAL_LINES:], 4)] if lines else []


def _indented(texts: Iterable[str], by: int = 2) -> list[str]:
    return [" " * by + cut(line) for text in texts for line in text.splitlines()]


def counts(results: Iterable[Result]) -> tuple[int, int, int]:
    """(passed, failed, skipped), a guest's own checks counted one by one."""
    seen = [status for result in results for status in result.counted]
    return seen.count(PASS), seen.count(FAIL), seen.count(SKIP)


def closing_line(results: Iterable[Result]) -> str:
    """The last line of a run."""
    return "{} passed, {} failed, {} skipped".format(*counts(results))


def _points(results: Iterable[Result]) -> list[tuple[str, str, str, Result]]:
    """(status, name, detail, result) of everything that is counted."""
    points: list[tuple[str, str, str, Result]] = []
    for result in results:
        points += [(check.status, f"{result.job.title} {check.name}", check.detail, result) for check in result.checks]
        if len(result.counted) > len(result.checks):
            points.append((result.status, result.job.title, "\n".join(result.reasons), result))
    return points


def tap(results: Iterable[Result]) -> str:
    """Test Anything Protocol, version 13."""
    points = _points(results)
    lines = ["TAP version 13", f"1..{len(points)}"]
    for number, (status, name, detail, _) in enumerate(points, 1):
        first = (detail.splitlines() or [""])[0]
        directive = f" # SKIP {first}" if status == SKIP else ""
        lines.append(f"{'not ok' if status == FAIL else 'ok'} {number} - {name.replace('#', chr(92) + '#')}{directive}")
        if status == FAIL:
            lines += [f"# {line}" for line in detail.splitlines()]
    return printable("\n".join(lines) + "\n")


def junit(results: list[Result]) -> bytes:
    """JUnit XML: a suite a suite.toml, named after its folder; a testcase everything that is counted, with seconds of the host's clock.

    What XML does not allow is not printable, so it is escaped like the rest.
    """
    root = ET.Element("testsuites")
    for suite, name in _suite_names(results).items():
        ours = [result for result in results if result.job.case.suite == suite]
        points = _points(ours)
        statuses = [status for status, *_ in points]
        element = ET.SubElement(
            root,
            "testsuite",
            name=printable(name),
            tests=str(len(points)),
            failures=str(statuses.count(FAIL)),
            skipped=str(statuses.count(SKIP)),
            errors="0",
            time=f"{sum(result.seconds for result in ours):.3f}",
        )
        timed: set[int] = set()
        for status, point, detail, result in points:
            seconds = 0.0 if id(result) in timed else result.seconds  # a guest's checks share a run: its first one has the time
            timed.add(id(result))
            case = ET.SubElement(
                element,
                "testcase",
                name=printable(point),
                classname=printable(f"{name}.{result.job.where}"),
                time=f"{seconds:.3f}",
            )
            if status == SKIP:
                ET.SubElement(case, "skipped", message=printable(detail))
            elif status == FAIL:
                ET.SubElement(case, "failure", message=printable(detail)).text = explanation(result)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite_names(results: list[Result]) -> dict[Path, str]:
    """Each suite's name: that of its folder, however the command line names it; the whole path where two folders have one name."""
    suites = dict.fromkeys(result.job.case.suite for result in results)
    folders = {suite: Path(os.path.normpath(suite.absolute())).parent for suite in suites}
    twice = {name for name, count in Counter(folder.name for folder in folders.values()).items() if count > 1}
    return {suite: one_line(str(folder) if folder.name in twice else folder.name) for suite, folder in folders.items()}
