"""The `emu` command: the only place that reads arguments and prints."""

from __future__ import annotations

import contextlib
import os
import sys

from emu.errors import EmuError, printable

STATUS_USAGE = 2
STATUS_OUTPUT = 74
STATUS_INTERRUPTED = 130
STANDARD_ERROR = 2  # a descriptor


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Whatever goes wrong is one line on standard error."""
    from typer.exceptions import TyperException  # noqa: PLC0415  (kept off the path of `import emu.cli`)

    from emu.cli.app import app, normalize  # noqa: PLC0415

    try:
        given = normalize(sys.argv[1:] if arguments is None else arguments)
        status = app(given or ["--help"], prog_name="emu", standalone_mode=False)
    except EmuError as error:
        return complain(str(error), error.exit_status)
    except TyperException as error:
        return complain(_usage_message(error), STATUS_USAGE)
    except KeyboardInterrupt:
        return complain("interrupted", STATUS_INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{(error.strerror or str(error)).lower()}", STATUS_OUTPUT)
    return status if isinstance(status, int) else 0


def _usage_message(error: Exception) -> str:
    described = getattr(error, "format_message", lambda: str(error))()
    return f"{' '.join(described.split())} (try 'emu --help')"


def complain(message: str, status: int) -> int:
    """Print `emu: message` to standard error, if there is one: one line, whatever names it quotes."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"emu: {printable(message)}", file=sys.stderr, flush=True)
    return status


def hold_standard_descriptors() -> None:
    """Have descriptors 0 to 2 lead somewhere. A snapshot or a disk image that was opened in place of a closed one would get what C writes to it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)


def run() -> None:
    """The console script."""
    hold_standard_descriptors()
    sys.exit(main())
