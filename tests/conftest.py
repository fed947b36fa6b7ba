# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples are the same in every run: set EMU_RANDOM_EXAMPLES to search with new ones. Signals end every child."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("search" if os.environ.get("EMU_RANDOM_EXAMPLES") else "repeatable")

# A shell starts what runs in the background with these ignored, and nohup does; children would inherit it, and emu respects it.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
