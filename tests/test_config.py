"""What users write for sizes, counts and times."""

from __future__ import annotations

import pytest

from emu.config import parse_count
from emu.errors import UsageError


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("5M", 5_000_000), ("2g", 2_000_000_000), (" 10K ", 10_000), ("123", 123)])
def test_counts_have_decimal_suffixes(text: str, count: int) -> None:
    """A million instructions are a million, not 2 to the 20th."""
    assert parse_count(text, what="limit") == count


@pytest.mark.parametrize("text", ["", "0", "0M", "M", "-1", "1.5M", "5T", "5MB", "5 M", "\u0665M", "9" * 19, "soon"])
def test_other_counts_are_refused_by_name(text: str) -> None:
    """The error names the option and what was expected."""
    with pytest.raises(UsageError, match="--cpu-limit .*expected a whole number above 0"):
        parse_count(text, what="--cpu-limit")
