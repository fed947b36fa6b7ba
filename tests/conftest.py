# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples are the same in every run: set EMU_RANDOM_EXAMPLES to search with new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("search" if os.environ.get("EMU_RANDOM_EXAMPLES") else "repeatable")
