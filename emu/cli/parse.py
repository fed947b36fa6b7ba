"""From arguments to what they ask for: everything is checked here, and nothing is run."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from emu.cli.request import OPTIONAL_VALUES, Request
from emu.errors import BadImageError, EmuError, UsageError
from emu.wording import one_line, suggestion

LONGEST_SHOWN = 300  # letters of a message about arguments
EXTRA = "unexpected extra argument"  # in Typer's message


def parse(arguments: Sequence[str]) -> Request | None:
    """What `arguments` ask for; None if it was help or the version, which are printed. Raises EmuError, OSError if that fails."""
    from typer.exceptions import TyperException

    if any("\0" in argument for argument in arguments):
        raise UsageError("an argument has a NUL character in it")
    try:
        asked = _command().main(normalize(arguments) or ["--help"], prog_name="emu", standalone_mode=False)
    except EmuError as error:
        raise with_hint(error, arguments) from error
    except TyperException as error:
        raise with_hint(UsageError(_message(error, arguments)), arguments) from error
    return asked if isinstance(asked, Request) else None


@functools.cache
def _command() -> Any:
    import typer.main

    from emu.cli.app import app

    return typer.main.get_command(app)


def normalize(arguments: Sequence[str]) -> list[str]:
    """`emu help boot` as `emu boot --help`, and options with an optional value with their meaning without one.

    Typer knows only options with or without a value.
    """
    if arguments and arguments[0] == "help" and not any(item.startswith("-") for item in arguments):
        arguments = [*arguments[1:], "--help"]
    return [f"{item}={OPTIONAL_VALUES[item]}" if item in OPTIONAL_VALUES else item for item in arguments]


def about_a_name(error: OSError, arguments: Sequence[str]) -> UsageError | None:
    """An error for a file that an argument names and that no call takes, as one with a name too long; None for any other."""
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if not named or not any(named in argument for argument in arguments):
        return None
    return UsageError(f"{named[:LONGEST_SHOWN]}: {(error.strerror or str(error)).lower()}")


def with_hint(error: EmuError, arguments: Sequence[str]) -> EmuError:
    """An error about what follows an option with an optional value says how that is given: `--trace out.txt` names no file."""
    if type(error) not in (UsageError, BadImageError) or "is joined to it" in str(error):
        return error
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option not in OPTIONAL_VALUES or not value or value.startswith("-"):
            continue
        if one_line(value) in one_line(str(error)) or EXTRA in str(error):
            return type(error)(f"{error} (a value of {option} is joined to it: {option}={one_line(value)})")
    return error


def _message(error: Exception, arguments: Sequence[str]) -> str:
    """Typer's message as one line of ours, with the page of help that tells more."""
    described = " ".join(getattr(error, "format_message", lambda: str(error))().split()).rstrip(".")
    if like := getattr(error, "possibilities", None):
        described = f"{error}{suggestion(getattr(error, 'option_name', ''), like)}"
    context = getattr(error, "ctx", None)  # not every error has one
    command = getattr(context, "command_path", " ".join(["emu", *(item for item in arguments[:1] if item.isalpha())]))
    described = one_line(described[:1].lower() + described[1:])
    if len(described) > LONGEST_SHOWN:
        described = described[:LONGEST_SHOWN] + "..."
    return f"{described} (try '{command} --help')"
