# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples are the same in every run: set EMU_RANDOM_EXAMPLES to search with new ones. Ctrl-C works in every child."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("search" if os.environ.get("EMU_RANDOM_EXAMPLES") else "repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
