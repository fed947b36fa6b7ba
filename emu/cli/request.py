"""What the commands of `emu.cli.app` give back: what is to be done, checked but not begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OPTIONAL_VALUES = {"--trace": "-", "--tables": "end"}  # options whose value may be left out, and what that means


@dataclass(frozen=True)
class Request:
    """What a command line asks for: frozen options, and the function that does it and returns the exit status."""

    options: Any
    run: Callable[[], int]
