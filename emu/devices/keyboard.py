"""The 8042 keyboard controller at ports 60 and 64, for what kernels use it without a keyboard: self-test, A20, reset.

No keyboard is attached, so bytes for one are taken and never answered. The A20 line of this board is always open; its bit
of the output port reads back as written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

PORT_DATA, PORT_COMMAND = 0x60, 0x64
STATUS_OUTPUT_FULL, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED = 0x01, 0x04, 0x08, 0x10
READ_COMMAND_BYTE, WRITE_COMMAND_BYTE = 0x20, 0x60
DISABLE_MOUSE, ENABLE_MOUSE, TEST_MOUSE = 0xA7, 0xA8, 0xA9
SELF_TEST, TEST_KEYBOARD, DISABLE_KEYBOARD, ENABLE_KEYBOARD = 0xAA, 0xAB, 0xAD, 0xAE
READ_OUTPUT_PORT, WRITE_OUTPUT_PORT = 0xD0, 0xD1
PULSE_FIRST, PULSE_RESET_BIT = 0xF0, 0x01  # F0-FF pull output lines low where the command's bit is 0
SELF_TEST_OK, TEST_OK = 0x55, 0x00
OUTPUT_NOT_RESET, OUTPUT_A20 = 0x01, 0x02
DEFAULT_COMMAND_BYTE = 0x45  # translate, system flag, keyboard interrupt
MAX_ANSWERS = 16  # bytes kept for a guest that never reads


class KeyboardController:
    """The controller; `reset_machine` is called when it pulls the reset line."""

    WIRING: ClassVar = frozenset({"_reset_machine"})

    PORTS = (range(PORT_DATA, PORT_DATA + 1), range(PORT_COMMAND, PORT_COMMAND + 1))

    def __init__(self, reset_machine: Callable[[], None]) -> None:
        self._reset_machine = reset_machine
        self.reset()

    def reset(self) -> None:
        """Power-on state."""
        self._answers: deque[int] = deque(maxlen=MAX_ANSWERS)
        self._command_byte = DEFAULT_COMMAND_BYTE
        self._output_port = OUTPUT_NOT_RESET | OUTPUT_A20
        self._waiting_command = 0  # one whose data byte is due
        self._last_was_command = False

    def read(self, port: int, _size: int) -> int:
        """IN."""
        if port == PORT_DATA:
            return self._answers.popleft() if self._answers else 0
        status = STATUS_SYSTEM | STATUS_UNLOCKED
        return status | (STATUS_OUTPUT_FULL if self._answers else 0) | (STATUS_COMMAND if self._last_was_command else 0)

    def write(self, port: int, _size: int, value: int) -> None:
        """OUT."""
        self._last_was_command = port == PORT_COMMAND
        if port == PORT_COMMAND:
            self._command(value)
            return
        command, self._waiting_command = self._waiting_command, 0
        if command == WRITE_COMMAND_BYTE:
            self._command_byte = value
        elif command == WRITE_OUTPUT_PORT:
            self._output_port = value
            if not value & OUTPUT_NOT_RESET:
                self._reset_machine()

    def _command(self, value: int) -> None:
        answers = {
            READ_COMMAND_BYTE: self._command_byte,
            SELF_TEST: SELF_TEST_OK,
            TEST_KEYBOARD: TEST_OK,
            TEST_MOUSE: TEST_OK,
            READ_OUTPUT_PORT: self._output_port,
        }
        if value in answers:
            self._answers.append(answers[value])
        elif value in (WRITE_COMMAND_BYTE, WRITE_OUTPUT_PORT):
            self._waiting_command = value
        elif value >= PULSE_FIRST and not value & PULSE_RESET_BIT:
            self._reset_machine()
