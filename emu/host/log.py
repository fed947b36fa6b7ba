"""The record of a run: a row for each VM and virtual second, as Parquet (docs/host.md has the columns).

The file is whole at every time: now and then another takes its place, which has what came since, too. So it can be read while the run goes on, and
a process that is killed leaves all but the last seconds. Only rows since the last full row group are kept in memory; groups before are copied.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emu import __version__
from emu.errors import OutputError
from emu.host.guest_lines import Number
from emu.host.host import Host
from emu.host.statistics import Measured, VmRates, VmRow
from emu.replacing import can_be_replaced, replacing

GROUP_ROWS = 8192  # a full row group: below a thousand, what Parquet says about a group is larger than the group
FLUSH_SECONDS = 2.0  # of real time between two files
FLUSH_PART = 50  # and so many times what the last one took, so that writing never takes more than two per cent
MOST_NUMBERS = 64  # of a guest's lines in one interval
TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SAID = pa.list_(pa.struct([(field.name, TYPES[str(field.type)]) for field in fields(Number)]))
SCHEMA = pa.schema(
    [("seconds", pa.float64()), ("state", pa.string()), ("free", pa.int64())]
    + [(field.name, TYPES[str(field.type)]) for kind in (VmRow, VmRates) for field in fields(kind)]
    + [("said", SAID)]
)


def metadata(host: Host) -> dict[str, str]:
    """What the file says of the run: enough to do it again."""
    plan = host.scenario
    about = {
        "version": __version__,
        "scenario": plan.name,
        "scenario_text": plan.text,
        "seed": plan.seed,
        "machine_bytes": plan.memory,
        "instructions_per_second": plan.insns_per_second,
        "begins_at": host.seconds,
    }
    return {f"emu.{name}": str(value) for name, value in about.items()}


class HostLog:
    """A Parquet file, there from the beginning; raises OutputError where the host does not take it. `finish` is called in the end."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self._path = path
        self._schema = SCHEMA.with_metadata(dict(about))
        self._spool: Path | None = None  # in place of what cannot be replaced: a pipe, a device
        self._full = 0  # row groups that will not change any more
        self._new: list[dict[str, Any]] = []  # rows behind them
        self._flushed_at = self._took = 0.0
        self._is_finished = False
        if not can_be_replaced(path):
            with tempfile.NamedTemporaryFile(prefix="emu-log-", delete=False) as file:
                self._spool = Path(file.name)
        self._flush()

    def add(self, measured: Measured, said: Mapping[str, Iterable[Number]]) -> None:
        """The rows of an interval, with what guests said in it."""
        machine = measured.machine
        head = {"seconds": machine.seconds, "state": machine.state, "free": machine.free}
        for row, rates in measured.vms:
            numbers = [asdict(number) for number in said.get(row.name, ())][:MOST_NUMBERS]
            self._new.append({**head, **asdict(row), **asdict(rates), "said": numbers})
        if len(self._new) >= GROUP_ROWS or time.monotonic() - self._flushed_at > max(FLUSH_SECONDS, FLUSH_PART * self._took):
            self._flush()

    def finish(self) -> None:
        """All that was added is there; nothing follows."""
        if self._is_finished:
            return
        self._is_finished = True
        try:
            self._flush()
            if self._spool is not None:
                with self._spool.open("rb") as whole, self._path.open("wb") as target:
                    shutil.copyfileobj(whole, target)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            if self._spool is not None:
                self._spool.unlink(missing_ok=True)

    def _flush(self) -> None:
        start = time.monotonic()
        full, rest = divmod(len(self._new), GROUP_ROWS)
        try:
            with replacing(self._spool or self._path) as file, self._writer(file) as writer:
                for group in self._groups():
                    writer.write_table(group)
                for number in range(full + (rest > 0)):
                    rows = self._new[number * GROUP_ROWS : (number + 1) * GROUP_ROWS]
                    writer.write_table(pa.Table.from_pylist(rows, self._schema))
        except (OSError, pa.ArrowException) as error:
            raise self._failure(error) from error
        self._full += full
        del self._new[: full * GROUP_ROWS]
        self._flushed_at = time.monotonic()
        self._took = self._flushed_at - start

    def _writer(self, file: Any) -> pq.ParquetWriter:
        return pq.ParquetWriter(file, self._schema, compression="zstd", version="2.6")

    def _groups(self) -> Iterator[pa.Table]:
        """The full row groups of the file that is there."""
        if self._full:
            with pq.ParquetFile(self._spool or self._path) as before:
                for number in range(self._full):
                    yield before.read_row_group(number)

    def _failure(self, error: Exception) -> OutputError:
        return OutputError(f"{self._path}: cannot write the log ({(getattr(error, 'strerror', None) or str(error)).lower()})")
