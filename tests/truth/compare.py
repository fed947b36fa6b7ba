# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs cases on an engine and compares its report with what the reference expects."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from tests.truth import cases, known, layout
from tests.truth.cases import Expectation, Operation
from tests.truth.engines import Engine
from tests.truth.layout import REPORT_ACCESS, REPORT_CASE, REPORT_DONE, REPORT_END, REPORT_STRAY


@dataclass(frozen=True)
class Answer:
    """What the guest reports of one access."""

    vector: int
    error: int
    cr2: int
    value: int
    changes: tuple[tuple[int, int], ...]  # (number of the watched word, its 64 bits)


@dataclass(frozen=True)
class Difference:
    """Where an engine and the reference part, in one case."""

    engine: str
    number: int  # of the case in the run
    access: int  # which access of it, -1 if it is the whole case
    text: str
    ended_run: bool = False  # the cases after it were not carried out


@dataclass
class Tally:
    """How many cases were carried out and compared, and how many were left out, by why."""

    compared: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class Report:
    """What came through the debug port, taken apart; `cases` holds those that were reported to their end."""

    def __init__(self, data: bytes) -> None:
        self.cases: dict[int, list[Answer]] = {}
        self.disturbed: dict[int, int] = {}
        self.ending = "the guest did not come to its end"
        self.unfinished: int | None = None  # the case that the run ended in
        self._data, self._at = data, 0
        try:
            self._parse()
        except (struct.error, IndexError):
            pass

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _parse(self) -> None:
        answers: list[Answer] = []
        while True:
            tag = self._data[self._at]
            self._at += 1
            if tag == REPORT_CASE:
                (self.unfinished,) = self._take("<I")
                answers = []
            elif tag == REPORT_ACCESS:
                answers.append(self._answer())
            elif tag == REPORT_END and self.unfinished is not None:
                (self.disturbed[self.unfinished],) = self._take("<I")
                self.cases[self.unfinished] = answers
                self.unfinished = None
            elif tag == REPORT_STRAY:
                vector, error, cr2, ip = self._take("<BIII")
                self.ending = f"vector {vector} with error {error:#x}, CR2 {cr2:#x} at {ip:#x} in the interpreter"
                return
            elif tag == REPORT_DONE:
                self.ending = ""
                return
            else:
                self.ending = f"byte {tag:#x} is out of place in the report"
                return

    def _answer(self) -> Answer:
        vector, error, cr2, value, count = self._take("<BHQIB")
        return Answer(vector, error, cr2, value, tuple(self._change() for _ in range(count)))

    def _change(self) -> tuple[int, int]:
        number, word = self._take("<BQ")
        return number, word


def compare_access(expected: Expectation, answer: Answer, words: dict[int, int], watched: list[int]) -> str:
    """What is wrong with an answer, "" if nothing; `words` follows the engine's memory."""
    for number, word in answer.changes:
        words[watched[number]], words[watched[number] + 4] = word & cases.ONES32, word >> 32
    if answer.vector != expected.vector:
        return f"vector {answer.vector:#x} (error {answer.error:#x}, CR2 {answer.cr2:#x}), expected {expected.vector:#x}"
    if answer.error != expected.error:
        return f"error code {answer.error:#x}, expected {expected.error:#x}"
    if answer.vector == 14 and answer.cr2 != expected.cr2:
        return f"CR2 {answer.cr2:#x}, expected {expected.cr2:#x}"
    if expected.value is not None and (answer.value ^ expected.value) & ~expected.unknown:
        return f"value {answer.value:#x}, expected {expected.value:#x}"
    for address, value in expected.memory.items():
        seen = words.get(address, layout.pattern(address))
        if (seen ^ value) & ~expected.memory_unknown.get(address, 0):
            return f"word at {address:#x} is {seen:#x}, expected {value:#x}"
    return ""


def compare_case(
    engine: Engine, number: int, expected: list[Expectation], answers: list[Answer], watched: list[int]
) -> Difference | None:
    """The first difference in a case."""
    words: dict[int, int] = {}
    for position, (wanted, answer) in enumerate(zip(expected, answers, strict=True)):
        allowed = known.adapt(engine.name, wanted)
        text = compare_access(allowed, answer, words, watched)
        if text:
            return Difference(engine.name, number, position, f"{text} ({wanted.description})")
    return None


Prepared = dict[int, tuple[list[Expectation], list[int]]]
"""Number of a case to what its accesses must do, and the addresses watched."""


def prepare(engine: Engine, chosen: list[list[Operation]]) -> tuple[Prepared, bytes, dict[int, str]]:
    """What an engine's answers are compared with, the script, and why cases are left out: they would harm the guest on its board."""
    prepared: Prepared = {}
    left_out: dict[int, str] = {}
    for number, operations in enumerate(chosen):
        try:
            prepared[number] = cases.expectations(operations, engine.board)
        except cases.RefusedError as refusal:
            left_out[number] = str(refusal)
    return prepared, cases.script([cases.encode(n, chosen[n], watched) for n, (_, watched) in prepared.items()]), left_out


def run(engine: Engine, chosen: list[list[Operation]], tally: Tally | None = None) -> list[Difference]:
    """Run cases on an engine; the differences, at most one a case. A run that ends early is a difference of the case it ended in.

    `tally` counts the cases that were compared, the one that a run ended in included, and those left out before it.
    """
    prepared, script, left_out = prepare(engine, chosen)
    data, ending = engine.run(script)
    report = Report(data)
    differences: list[Difference] = []
    for number, answers in report.cases.items():
        expected, watched = prepared[number]
        found = compare_case(engine, number, expected, answers, watched)
        if not found and report.disturbed[number]:
            found = Difference(engine.name, number, -1, f"memory at {report.disturbed[number]:#x} changed")
        if found:
            differences.append(found)
    last = len(chosen)
    if report.ending or ending:
        number = -1 if report.unfinished is None else report.unfinished
        last = number
        differences.append(Difference(engine.name, number, -1, ending or report.ending, ended_run=True))
    if tally is not None:
        tally.compared += len(report.cases) + (report.unfinished is not None)
        tally.left_out += Counter(reason for number, reason in left_out.items() if number < last)
    return differences
