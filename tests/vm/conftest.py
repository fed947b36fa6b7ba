# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets the tests here import their harness however pytest was started."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
