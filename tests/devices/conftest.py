# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets the tests here import their helpers however pytest was started, and gives each a fresh bench."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.devices.helpers import Bench  # noqa: E402 - after the path is set


@pytest.fixture
def bench() -> Bench:
    return Bench()
