"""The `emu` command: the only place that reads arguments and prints."""

from __future__ import annotations

import contextlib
import sys

from emu.errors import BadImageError, EmuError, MachineMemoryError, UsageError, printable

STATUS_OUTPUT = 74
STATUS_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Whatever goes wrong is one line on standard error."""
    from emu.cli.parse import about_a_name, parse, with_hint  # (kept off the path of `import emu.cli`)

    given = sys.argv[1:] if arguments is None else arguments
    try:
        request = parse(given)
        return 0 if request is None else request.run()
    except (UsageError, BadImageError) as error:
        return complain(str(with_hint(error, given)), error.exit_status)
    except EmuError as error:
        for line in error.lines:
            complain(line, error.exit_status)
        return error.exit_status
    except KeyboardInterrupt:
        return complain("interrupted", STATUS_INTERRUPTED)
    except MemoryError:
        return complain("the host has not enough memory for this", MachineMemoryError.exit_status)
    except OSError as error:
        if (wrong := about_a_name(error, given)) is not None:
            return complain(str(wrong), wrong.exit_status)
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{(error.strerror or str(error)).lower()}", STATUS_OUTPUT)


def complain(message: str, status: int) -> int:
    """Print `emu: message` to standard error, if there is one: one line, whatever names it quotes."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"emu: {printable(message)}", file=sys.stderr, flush=True)
    return status


def run() -> None:
    """The console script."""
    sys.exit(main())
