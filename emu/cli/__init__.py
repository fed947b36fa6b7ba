"""The `emu` command: the only place that reads arguments and prints."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

from emu.errors import EmuError, MachineMemoryError, explain, is_for_want_of_memory
from emu.limits import LEAST_ADDRESS_SPACE, is_address_space_short, limit_in_words
from emu.units import MIB

HEAVY_COMMANDS = ("boot", "test", "host", "bench")  # that load NumPy, Numba and Unicorn
STATUS_USAGE = 2
STATUS_MEMORY = MachineMemoryError.exit_status
STATUS_OUTPUT = 74
STATUS_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Whatever goes wrong is one line on standard error."""
    wanted = (sys.argv[1:] if arguments is None else arguments)[:1]
    if (
        wanted and wanted[0] in HEAVY_COMMANDS and is_address_space_short()
    ):  # the libraries would end the process in their own ways
        return complain(f"at least {LEAST_ADDRESS_SPACE // MIB} MiB of address space are needed{limit_in_words()}", STATUS_MEMORY)
    from typer.exceptions import TyperException  # noqa: PLC0415  (kept off the path of `import emu.cli`)

    from emu.cli.app import app, normalize  # noqa: PLC0415

    # NumPy's library takes memory for each of its threads, and emu multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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
        if is_for_want_of_memory(error):
            return complain(str(explain(error)), explain(error).exit_status)
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{(error.strerror or str(error)).lower()}", STATUS_OUTPUT)
    except Exception as error:  # noqa: BLE001  (a line, whatever it was)
        if sys.flags.dev_mode:
            traceback.print_exc()
        return complain(str(explain(error)), explain(error).exit_status)
    return status if isinstance(status, int) else 0


def _usage_message(error: Exception) -> str:
    described = getattr(error, "format_message", lambda: str(error))()
    return f"{' '.join(described.split())} (try 'emu --help')"


def complain(message: str, status: int) -> int:
    """Print `emu: message` to standard error, if there is one: one line, whatever names it quotes."""
    message = "".join(part if part.isprintable() else part.encode("unicode_escape").decode("ascii") for part in message)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"emu: {message}", file=sys.stderr, flush=True)
    return status


def run() -> None:
    """The console script."""
    sys.exit(main())
