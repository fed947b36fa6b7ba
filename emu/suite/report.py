"""Results as text: lines, explanations, TAP and JUnit XML. All pure: the caller writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

from emu.suite.results import FAIL, PASS, SKIP, Result

SERIAL_LINES = 20  # of a failed run's serial text
NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would move a terminal's cursor, or worse


def printable(text: str) -> str:
    """A guest's words with its control characters shown as escapes: no guest drives the user's terminal."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def result_line(result: Result) -> str:
    """The line of a case that has ended."""
    parts = [f"{result.instructions:,} instructions"] if result.instructions else []
    if result.checks:
        parts.insert(0, f"{len(result.checks)} checks")
    if result.note or (result.status == SKIP and result.reasons):
        parts.append(result.note or result.reasons[0])
    tail = f": {', '.join(parts)}" if parts else ""
    return printable(f"{result.status} {result.job.title}{tail}")


def explanation(result: Result) -> str:
    """All about a failure: what was expected and seen, the last serial lines, the last events."""
    lines = [f"FAIL {result.job.title}", f"  {result.job.case.suite}", *_indented(result.reasons)]
    serial = result.serial.splitlines()
    if serial:
        lines += ["  serial, last lines:" if len(serial) > SERIAL_LINES else "  serial:"]
        lines += _indented(serial[-SERIAL_LINES:], 4)
    if result.trace_tail:
        lines += [f"  last {len(result.trace_tail)} events before the end:", *_indented(result.trace_tail, 4)]
    return printable("\n".join(lines))


def _indented(texts: Iterable[str], by: int = 2) -> list[str]:
    return [" " * by + line for text in texts for line in text.splitlines()]


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
    """JUnit XML: a suite a suite.toml, a testcase everything that is counted."""
    root = ET.Element("testsuites")
    for suite in dict.fromkeys(result.job.case.suite for result in results):
        points = _points(result for result in results if result.job.case.suite == suite)
        statuses = [status for status, *_ in points]
        element = ET.SubElement(
            root,
            "testsuite",
            name=_xml(str(suite)),
            tests=str(len(points)),
            failures=str(statuses.count(FAIL)),
            skipped=str(statuses.count(SKIP)),
            errors="0",
        )
        for status, name, detail, result in points:
            case = ET.SubElement(element, "testcase", name=_xml(name), classname=_xml(f"{suite.parent.name}.{result.job.where}"))
            if status == SKIP:
                ET.SubElement(case, "skipped", message=_xml(detail))
            elif status == FAIL:
                ET.SubElement(case, "failure", message=_xml(detail)).text = _xml(explanation(result))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _xml(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
