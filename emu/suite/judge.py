"""What a run was expected to be, and what it was: each difference in words. Pure but for reading golden files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from emu.errors import EmuError
from emu.events import Outcome
from emu.regular import reason_of
from emu.suite import matching
from emu.suite.cases import Bound, Expectation
from emu.suite.goldens import read_golden
from emu.suite.protocol import Check
from emu.suite.run import Finished
from emu.wording import cut, exit_value

CONTEXT_LINES = 3  # before and after the first line that differs


def ending(outcome: Outcome, value: int, why: str = "") -> str:
    """How a run ended, in words."""
    text = f"{outcome} with value {exit_value(value)}" if outcome is Outcome.EXITED else str(outcome)
    return f"{text} ({why})" if why else text


def differences(expected: Expectation, run: Finished, checks: list[Check] | None) -> list[str]:
    """Everything but golden files that is not as expected; `checks` are None for a guest without any."""
    found = [f"end: {run.cut_off}"] if run.cut_off else []
    wanted_value = expected.exit if expected.outcome is Outcome.EXITED else run.value
    if not run.cut_off and (run.outcome, run.value) != (expected.outcome, wanted_value):
        wanted = ending(expected.outcome, expected.exit)
        found.append(f"end: expected {wanted}, seen {ending(run.outcome, run.value, run.why)}")
    found += _text_differences("serial", expected.serial, expected.serial_regex, run.serial)
    found += _text_differences("screen", expected.screen, expected.screen_regex, run.screen)
    if expected.serial_exact is not None and expected.serial_exact != run.serial:
        found.append("serial: " + first_difference(expected.serial_exact, run.serial))
    for bound in expected.events:
        seen = run.counters[bound.counter]
        if not _is_within(bound, seen):
            found.append(f"events: expected {bound.name} {_range(bound)}, seen {seen}")
    return found + _check_differences(expected, checks or [])


def _text_differences(what: str, contained: tuple[str, ...], regex: str | None, seen: str) -> Iterator[str]:
    """What a text should contain, and does not."""
    yield from (f"{what}: expected to contain {cut(repr(text))}, not seen" for text in contained if text not in seen)
    if regex is not None:
        try:
            if not matching.search(regex, seen):
                yield f"{what}: expected to match {cut(repr(regex))}, no match"
        except EmuError as error:
            yield f"{what}: {cut(str(error))}"


def _is_within(bound: Bound, seen: int) -> bool:
    return (bound.least is None or seen >= bound.least) and (bound.most is None or seen <= bound.most)


def _range(bound: Bound) -> str:
    if bound.least == bound.most:
        return f"exactly {bound.least}"
    parts = [f"at least {bound.least}"] if bound.least is not None else []
    return " and ".join(parts + ([f"at most {bound.most}"] if bound.most is not None else []))


def _check_differences(expected: Expectation, checks: list[Check]) -> list[str]:
    """Failed checks that are not known, and known failures that did not fail."""
    failed = {check.name: check for check in checks if check.status == "FAIL"}
    found = [f"check {name}: {check.detail or 'failed'}" for name, check in failed.items() if name not in expected.known_failures]
    names = {check.name for check in checks}
    for name in expected.known_failures:
        if name not in failed:
            seen = "it passed" if name in names else "the guest has no such check"
            found.append(f"check {name}: expected to fail ({expected.reason}), {seen}")
    return found


def golden_difference(path: Path, what: str, seen: str) -> str:
    """How `seen` differs from a golden file; empty if it does not."""
    try:
        expected = read_golden(path)
    except FileNotFoundError:
        return f"{what}: no golden file {path}: --update makes it"
    except UnicodeDecodeError as error:
        return f"{what}: cannot read {path} ({error})"
    except OSError as error:
        return f"{what}: cannot read {path} ({reason_of(error)})"
    return "" if expected == seen else f"{what}: {path}: {first_difference(expected, seen)}"


def first_difference(expected: str, seen: str) -> str:
    """The first line that differs, with the lines around it."""
    theirs, ours = expected.splitlines(), seen.splitlines()
    pairs = itertools.zip_longest(theirs, ours)
    at = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        return "the texts differ only in how lines end"
    lines = [f"first difference in line {at + 1}"]
    lines += [f"    {line}" for line in theirs[max(0, at - CONTEXT_LINES) : at]]
    lines += [f"  - {line}" for line in theirs[at : at + CONTEXT_LINES]] or ["  - (end)"]
    lines += [f"  + {line}" for line in ours[at : at + CONTEXT_LINES]] or ["  + (end)"]
    return "\n".join(cut(line) for line in lines)
