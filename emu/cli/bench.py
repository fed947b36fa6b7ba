"""`emu bench`: run benchmarks and print a row each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from emu.bench.names import NAMES
from emu.bench.rows import BENCHMARKS, Row
from emu.cli.console import write_out

DIGITS = 3
NAME_WIDTH = max(map(len, NAMES))


def bench(names: Sequence[str], *, as_json: bool) -> int:
    """Run the named benchmarks; each row is printed when it is measured."""
    errors = Console(stderr=True)
    if not as_json:
        _print_line("name", "value", "unit", "peer", "peer's value", "ratio", "")
    for name in names:
        with errors.status(f"measuring {name}"):
            row = BENCHMARKS[name]()
        if as_json:
            write_out((json.dumps(_object(row)) + "\n").encode())
        else:
            values = (_number(row.value), row.unit, row.peer, _number(row.peer_value), _number(row.ratio), row.note)
            _print_line(row.name, *values)
    return 0


def _object(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "value": row.value,
        "unit": row.unit,
        "peer": row.peer,
        "peer_value": row.peer_value,
        "ratio": row.ratio,
        "note": row.note,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}g}"


def _print_line(name: str, value: str, unit: str, peer: str, peer_value: str, ratio: str, note: str) -> None:
    """Columns of widths that are known before the rows are."""
    line = f"{name:<{NAME_WIDTH}} {value:>9}  {unit:<7} {peer:<15} {peer_value:>12} {ratio:>9}  {note}"
    write_out((line.rstrip() + "\n").encode())
