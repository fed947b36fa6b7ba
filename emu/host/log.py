"""The record of a run: one row for each VM and virtual second, as Parquet. A row of the screen, with the time and the machine's state."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from emu.errors import OutputError
from emu.host.host import Host
from emu.host.statistics import machine_row, vm_rows

_TEXTS, _REALS = ("name", "phase", "state"), ("seconds", "shrdsvd")


class HostLog:
    """A Parquet file; a context manager. Raises OutputError where the host does not take it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("wb")
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            self.close()
        except OSError as error:
            if kind is None:
                raise self._failure(error) from error

    def close(self) -> None:
        """Write what makes a file of the rows so far."""
        if self._writer is not None:
            self._writer.close()
        if self._file is not None:
            self._file.close()

    def second(self, host: Host) -> None:
        """Write the rows of this second."""
        machine = machine_row(host)
        rows = [
            {"seconds": machine.seconds, "state": machine.state, "free": machine.free, **asdict(row)} for row in vm_rows(host)
        ]
        if not rows:
            return
        try:
            if self._writer is None:
                fields = [
                    (name, pa.string() if name in _TEXTS else pa.float64() if name in _REALS else pa.int64()) for name in rows[0]
                ]
                self._schema = pa.schema(fields)
                self._writer = pq.ParquetWriter(self._file, self._schema)
            self._writer.write_table(pa.Table.from_pylist(rows, self._schema))
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path}: cannot write the log ({(error.strerror or str(error)).lower()})")
