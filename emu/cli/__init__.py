"""The `emu` command: the only place that reads arguments and prints."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

from emu.errors import EmuError, MachineMemoryError, explain, is_for_want_of_memory
from emu.limits import LEAST_ADDRESS_SPACE, is_address_space_short, limit_in_words
from emu.units import MIB
from emu.wording import one_line

HEAVY_COMMANDS = ("boot", "test", "host", "bench")  # that load NumPy, Numba and Unicorn
STATUS_MEMORY = MachineMemoryError.exit_status
STATUS_OUTPUT = 74
STATUS_INTERRUPTED = 130
STANDARD_ERROR = 2  # a descriptor


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Whatever goes wrong is one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    is_heavy = bool(given) and given[0] in HEAVY_COMMANDS
    if is_heavy and is_address_space_short():  # the libraries would end the process in their own ways
        return complain(f"at least {LEAST_ADDRESS_SPACE // MIB} MiB of address space are needed{limit_in_words()}", STATUS_MEMORY)
    # NumPy's library takes memory for each of its threads, and emu multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from emu.cli.parse import about_a_name, parse, with_hint  # (kept off the path of `import emu.cli`)

    try:
        request = parse(given)
        return 0 if request is None else request.run()
    except EmuError as error:
        for line in with_hint(error, given).lines:
            complain(line, error.exit_status)
        return error.exit_status
    except KeyboardInterrupt:
        return complain("interrupted", STATUS_INTERRUPTED)
    except OSError as error:
        if is_for_want_of_memory(error):
            return complain(str(explain(error)), explain(error).exit_status)
        if (wrong := about_a_name(error, given)) is not None:
            return complain(str(wrong), wrong.exit_status)
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{(error.strerror or str(error)).lower()}", STATUS_OUTPUT)
    except Exception as error:  # noqa: BLE001  (a line, whatever it was)
        if sys.flags.dev_mode:
            traceback.print_exc()
        return complain(str(explain(error)), explain(error).exit_status)


def complain(message: str, status: int) -> int:
    """Print `emu: message` to standard error, if there is one: one line, whatever names it quotes."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"emu: {one_line(message)}", file=sys.stderr, flush=True)
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
