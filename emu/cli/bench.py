"""`emu bench`: run benchmarks and print a row each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from emu.bench.rows import BENCHMARKS, Row
from emu.errors import UsageError

DIGITS = 3


def bench(names: Sequence[str], *, as_json: bool) -> int:
    """Run the named benchmarks, all of them if none is named; raises UsageError for an unknown name."""
    for name in names:
        if name not in BENCHMARKS:
            raise UsageError(f"unknown benchmark '{name}': known are {', '.join(BENCHMARKS)}")
    errors = Console(stderr=True)
    rows: list[Row] = []
    for name in names or BENCHMARKS:
        with errors.status(f"measuring {name}"):
            rows.append(BENCHMARKS[name]())
        if as_json:
            print(json.dumps(_object(rows[-1])), flush=True)
    if not as_json:
        _print_table(rows)
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


def _print_table(rows: Sequence[Row]) -> None:
    table = Table("name", box=None, pad_edge=False)
    for heading in ("value", "unit", "peer", "peer's value", "ratio", ""):
        table.add_column(heading, justify="right" if heading in ("value", "peer's value", "ratio") else "left")
    for row in rows:
        table.add_row(row.name, _number(row.value), row.unit, row.peer, _number(row.peer_value), _number(row.ratio), row.note)
    Console(highlight=False, width=100).print(table)
