# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a failing case small: delta debugging over its operations, then over the bits of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tests.truth import cases
from tests.truth.cases import Board, Operation

Fails = Callable[[list[list[Operation]]], list[bool]]
"""For candidates, whether each still fails. They go to the engine together: starting one costs more than a case."""


def is_acceptable(operations: list[Operation]) -> bool:
    """Whether the model accepts a case."""
    try:
        return bool(cases.expectations(operations, Board())[0])
    except cases.Refused:
        return False


def shrink(operations: list[Operation], fails: Fails) -> list[Operation]:
    """A smaller case that still fails, with operations removed and bits cleared."""
    while smaller := _first_failing(_with_less(operations), fails):
        operations = smaller
    edits = _bits(operations)
    while edits:  # those that can go alone, then as many of them together as can
        verdicts = _verdicts([_cleared(operations, [edit]) for edit in edits], fails)
        edits = [edit for edit, failed in zip(edits, verdicts, strict=True) if failed]
        sizes = [len(edits) >> halvings for halvings in range(len(edits).bit_length())]
        together = _first_failing((_cleared(operations, edits[:size]) for size in sizes), fails)
        if not together:
            break
        operations, edits = together, _bits(together)
    return operations


def _verdicts(candidates: list[list[Operation]], fails: Fails) -> list[bool]:
    acceptable = [number for number, candidate in enumerate(candidates) if is_acceptable(candidate)]
    failed = dict(zip(acceptable, fails([candidates[number] for number in acceptable]), strict=True))
    return [failed.get(number, False) for number in range(len(candidates))]


def _first_failing(candidates: Iterable[list[Operation]], fails: Fails) -> list[Operation] | None:
    all_of_them = list(candidates)
    verdicts = _verdicts(all_of_them, fails)
    return next((candidate for candidate, failed in zip(all_of_them, verdicts, strict=True) if failed), None)


def _with_less(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Without runs of operations, the longest runs first."""
    length = len(operations) // 2
    while length:
        for start in range(0, len(operations) - length + 1, max(1, length // 2)):
            yield operations[:start] + operations[start + length :]
        length //= 2


Edit = tuple[int, int, int]
"""(which operation, which of its numbers, a bit)"""


def _bits(operations: list[Operation]) -> list[Edit]:
    """The bits that are set in stores to tables, control registers and kinds of access."""
    edits = []
    for position, operation in enumerate(operations):
        for place in {"poke": [3], "mode": [2, 3, 4, 5], "access": [1]}.get(operation[0], []):
            edits += [(position, place, 1 << bit) for bit in range(64) if operation[place] >> bit & 1]
    return edits


def _cleared(operations: list[Operation], edits: list[Edit]) -> list[Operation]:
    """A copy with these bits cleared."""
    copy = [list(operation) for operation in operations]
    for position, place, bit in edits:
        copy[position][place] &= ~bit
    return copy
