"""The records of pages opened for one guest instruction (`emu.vm.step`): layout only, shared with the walker."""

from __future__ import annotations

BYTES = 48  # int64 words:
SLOT = 0  # page that the instruction stores to
ENTRY = 8  # host address of the shadow or nested entry opened for it
SAVED = 16  # that entry before
PURPOSE = 24  # TABLE_STORE or DISCARD
ADDRESS = 32  # the faulting address
COPY_OF = 40  # host address of the page whose contents are compared (TABLE_STORE)
LIMIT = 2  # pages that one instruction's memory operand can touch

TABLE_STORE = 1  # a guest page table: compare afterwards
DISCARD = 2  # ROM or absent memory: the store goes to a sink
