# SPDX-License-Identifier: GPL-2.0-or-later
"""Events into tiny guests: what a handler is given, and what the instruction that caused the event left undone."""

from __future__ import annotations

from tests.vm.harness import exits_with, run_both


def test_the_harness_counts_what_it_runs() -> None:
    run = run_both("test: EXIT 5")
    assert run.stop == exits_with(5)
    assert run.notes == []


def test_page_fault_error_code_and_address() -> None:
    run = run_both("""
    test:
        PAGING
        EXPECT 1f
    fault1: movl 0x500000, %eax
    1:  EXPECT 2f
    fault2: movl %eax, 0x500004
    2:  EXIT 1
    """)
    assert run.stop == exits_with(1)
    first, second = run.notes
    assert (first.vector, first.error, first.cr2, first.eip) == (14, 0, 0x500000, run.label("fault1"))
    assert (second.vector, second.error, second.cr2, second.eip) == (14, 2, 0x500004, run.label("fault2"))
