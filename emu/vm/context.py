"""The guest's registers at an exit: CONTEXT, a copy of the engine's own state, of which only the part that the VMM reads is made.

The state has the processor's registers at both ends and those of the FPU and of vectors between them. The VMM never looks at the
latter, so `save` and `put_back` leave them out: they are four fifths of it, and an exit pays for each byte twice. Contexts that
hold all of it (HOST_CONTEXT, IO_CONTEXT, ASIDE_CONTEXT) are saved and restored by the engine's own functions.
"""

from __future__ import annotations

from emu.machine import control as cbw
from emu.machine.native import call2, call3, compiled


@compiled
def save(cb: object) -> None:
    """Copy the engine's registers into CONTEXT."""
    call3(cb[cbw.FN_COPY], cb[cbw.ENV], cb[cbw.LIVE], cb[cbw.LOW_BYTES])
    call3(cb[cbw.FN_COPY], cb[cbw.ENV] + cb[cbw.HIGH_AT], cb[cbw.LIVE] + cb[cbw.HIGH_AT], cb[cbw.HIGH_BYTES])


@compiled
def put_back(cb: object) -> None:
    """Give the engine what CONTEXT has."""
    call3(cb[cbw.FN_COPY], cb[cbw.LIVE], cb[cbw.ENV], cb[cbw.LOW_BYTES])
    call3(cb[cbw.FN_COPY], cb[cbw.LIVE] + cb[cbw.HIGH_AT], cb[cbw.ENV] + cb[cbw.HIGH_AT], cb[cbw.HIGH_BYTES])
    cb[cbw.MODIFIED] = 0


@compiled
def save_all(cb: object, into: int) -> None:
    """Copy all of the engine's state into one of the other contexts."""
    call2(cb[cbw.FN_SAVE], cb[cbw.ENGINE], into)


@compiled
def restore_all(cb: object, source: int) -> None:
    """Give the engine all of the state in one of the other contexts."""
    call2(cb[cbw.FN_RESTORE], cb[cbw.ENGINE], source)
