"""C functions that native code calls: into Python for ports, devices' registers and swap areas, and natively through the control block.

An exception must not cross native code: it is kept by `fail`, which has the guest stopped and whoever runs it raise it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from emu.devices.board import Board
from emu.machine import control as cbw
from emu.units import PAGE_BYTES
from emu.vm import handler, pmap

TAKES_TWO = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
TAKES_THREE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def install(
    control: np.ndarray,
    board: Board,
    *,
    before: Callable[[], None],
    after: Callable[[], None],
    fail: Callable[[BaseException], int],
    swap_in: Callable[[int, int], None],
) -> list[Any]:
    """Fill the control block's words; the C functions, which live as long as somebody keeps them.

    `before` is called before a port access and `after` behind one; `swap_in` takes a slot and an MPN.
    """

    def read(port: int, size: int) -> int:
        try:
            before()
            value = board.ports.read(port, size)
            after()
        except BaseException as error:  # noqa: BLE001
            return fail(error)
        return ctypes.c_int(value).value

    def write(port: int, size: int, value: int) -> int:
        try:
            before()
            board.ports.write(port, size, value & (1 << 8 * size) - 1)
            after()
        except BaseException as error:  # noqa: BLE001
            return fail(error)
        return 0

    def load(number: int, offset: int) -> int:
        try:
            value = board.mmio.read(pmap.DEVICE_PPNS[number] * PAGE_BYTES + offset, 4)
            after()
        except BaseException as error:  # noqa: BLE001
            return fail(error)
        return ctypes.c_int(value).value

    def store(number: int, offset: int, value: int) -> int:
        try:
            board.mmio.write(pmap.DEVICE_PPNS[number] * PAGE_BYTES + offset, 4, value)
            after()
        except BaseException as error:  # noqa: BLE001
            return fail(error)
        return 0

    def fetch(slot: int, mpn: int) -> int:
        try:
            swap_in(slot, mpn)
        except BaseException as error:  # noqa: BLE001
            return fail(error)
        return 0

    functions = {
        cbw.SWAP_IN_FN: TAKES_TWO(fetch),
        cbw.PORT_READ_FN: TAKES_TWO(read),
        cbw.PORT_WRITE_FN: TAKES_THREE(write),
        cbw.DEVICE_READ_FN: TAKES_TWO(load),
        cbw.DEVICE_WRITE_FN: TAKES_THREE(store),
    }
    for word, function in functions.items():
        control[word] = ctypes.cast(function, ctypes.c_void_p).value or 0
    for word, target in (
        (cbw.ENTER_BLOCK_FN, handler.on_other_block),
        (cbw.MEMORY_EXIT_FN, handler.memory_exit),
        (cbw.REGISTER_EXIT_FN, handler.register_exit),
        (cbw.DELIVER_FN, handler.deliver_event),
        (cbw.TASK_GATE_FN, handler.task_gate),
        (cbw.TASK_EXIT_FN, handler.task_exit),
    ):
        control[word] = target.address
    return list(functions.values())
