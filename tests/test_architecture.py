# SPDX-License-Identifier: GPL-2.0-or-later
"""The shape of the package: who imports whom, who prints, where native code comes from, what the guests share with it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from emu.devices import board, cmos, debug, pic, pit, system
from emu.machine import native
from emu.vm import loader

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "emu"
LAYERS = (
    "words",
    "machine",
    "devices",
    "vm",
    "resources",
    "trace",
    "suite",
    "host",
    "command",
)  # each may import itself and what stands before it
COMMAND = ("cli", "bench")
NATIVE_FOLDERS = ("machine", "vm", "resources")  # whose sources the compile cache is named after
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")
}
# Imported by modules that native code is built from, yet for their Python side only.
PYTHON_SIDE = {"emu.errors", "emu.machine.code_cache"}  # classes of exceptions, of which native code raises none; what keeps it


def layer(module: str) -> str:
    """The layer of `emu.part.name`; modules of the package itself are its words."""
    part = module.split(".")[1] if module.count(".") else ""
    if part in COMMAND or part == "__main__":
        return "command"
    return part if part in LAYERS else "words"


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


@functools.cache
def imported(module: str, *, at_top: bool = False) -> frozenset[str]:
    """Modules that `module` names in imports; `at_top`: when it is itself imported, not within functions."""
    nodes = ast.walk(tree(module)) if not at_top else iter(tree(module).body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            base = node.module or ""
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add(name if name in MODULES else base)
    return frozenset(found)


def ours(module: str, *, at_top: bool = False) -> list[str]:
    return sorted(name for name in imported(module, at_top=at_top) if name in MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    allowed = LAYERS[: LAYERS.index(layer(module)) + 1]
    assert [name for name in ours(module) if layer(name) not in allowed] == []


def test_the_words_import_only_words() -> None:
    assert {layer(name) for module in MODULES if layer(module) == "words" for name in ours(module)} == {"words"}


def test_no_imports_in_circles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for name in ours(module):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_one_module_imports_unicorn() -> None:
    users = [module for module in MODULES if any(name.split(".")[0] == "unicorn" for name in imported(module))]
    assert [module for module in users if not layer(module) == "command"] == ["emu.machine.engine"]


def _speaks(module: str) -> list[str]:
    """Calls of print and mentions of what belongs to the command line."""
    words = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
            words.append(node.func.id)
        is_sys = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys"
        if is_sys and node.attr in ("argv", "stdout", "stderr", "stdin", "exit"):  # type: ignore[attr-defined]
            words.append(f"sys.{node.attr}")  # type: ignore[attr-defined]
    return words


@pytest.mark.parametrize("module", sorted(module for module in MODULES if layer(module) != "command"))
def test_only_the_command_line_reads_arguments_or_prints(module: str) -> None:
    assert _speaks(module) == []


def test_the_command_line_is_seen_to_print() -> None:
    """The instrument of the test above works."""
    assert "print" in _speaks("emu.cli")
    assert "sys.argv" in _speaks("emu.cli")


@pytest.mark.parametrize("module", sorted(module for module in MODULES if layer(module) not in ("command", "words")))
def test_only_the_configuration_holds_defaults_of_a_vm(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "VmConfig")


# ---- native code ----


def is_native(module: str) -> bool:
    """Whether the module defines compiled functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef):
            names = {name.id for decorator in node.decorator_list for name in ast.walk(decorator) if isinstance(name, ast.Name)}
            if names & {"compiled", "cfunc", "njit"} and module != "emu.machine.native":
                return True
    return False


def is_python_only(module: str) -> bool:
    return MODULES[module].name in native.PYTHON_ONLY


def _digested(module: str) -> bool:
    """Whether the digest that names the compile cache takes the module in."""
    return MODULES[module].parent in (PACKAGE, *(PACKAGE / name for name in NATIVE_FOLDERS)) and not is_python_only(module)


def test_native_modules_are_found() -> None:
    assert {"emu.vm.handler", "emu.vm.shadow", "emu.vm.walk"} <= {module for module in MODULES if is_native(module)}


@pytest.mark.parametrize("module", sorted(module for module in MODULES if is_native(module)))
def test_native_code_is_digested_with_all_that_it_imports(module: str) -> None:
    """Else an edit of an inlined helper or constant would leave stale machine code in the cache."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        assert name == "emu" or _digested(name), f"{name} is imported by native {module} but not digested"
        new = set(ours(name, at_top=True)) - PYTHON_SIDE - seen
        seen |= new
        waiting += new


def test_every_module_without_native_code_that_is_named_exists() -> None:
    names = {path.name for folder in (PACKAGE, *(PACKAGE / name for name in NATIVE_FOLDERS)) for path in folder.glob("*.py")}
    assert names >= native.PYTHON_ONLY


# ---- the pages ----


def test_the_reading_order_names_every_module() -> None:
    page = ROOT / "docs" / "architecture.md"
    assert page.exists(), "docs/architecture.md, which gives the reading order, does not exist yet"
    words = page.read_text()
    empty = [path for module, path in MODULES.items() if path.name == "__init__.py" and not _defines(module)]
    missing = [
        str(path.relative_to(ROOT))
        for path in MODULES.values()
        if path not in empty and not _is_named(words, path.relative_to(PACKAGE))
    ]
    assert missing == []


def _defines(module: str) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree(module).body)


def _is_named(words: str, path: Path) -> bool:
    """By path, or by the module's dotted name."""
    dotted = "emu." + ".".join(path.with_suffix("").parts)
    return re.search(rf"(?<![\w/.])(?:emu/)?{re.escape(str(path))}\b", words) is not None or f"`{dotted}`" in words


def platform() -> dict[str, int]:
    source = (ROOT / "guests" / "lib" / "platform.h").read_text()
    return {name: int(value, 0) for name, value in re.findall(r"^#define (\w+) (\w+)$", source, re.MULTILINE)}


def shared() -> dict[str, int]:
    """What the machine has for each number that guests know."""
    return {
        "COM1_PORT": board.COM1_BASE,
        "COM1_IRQ": board.IRQ_COM1,
        "PIC_MASTER_COMMAND_PORT": pic.PicPair.PORTS[0][0],
        "PIC_MASTER_DATA_PORT": pic.PicPair.PORTS[0][1],
        "PIC_SLAVE_COMMAND_PORT": pic.PicPair.PORTS[1][0],
        "PIC_SLAVE_DATA_PORT": pic.PicPair.PORTS[1][1],
        "PIC_CASCADE_IRQ": pic.CASCADE,
        "PIT_CHANNEL0_PORT": pit.Pit.PORTS[0][0],
        "PIT_CHANNEL2_PORT": pit.Pit.PORTS[0][2],
        "PIT_COMMAND_PORT": pit.PORT_COMMAND,
        "PIT_GATE_PORT": pit.PORT_GATE,
        "PIT_IRQ": board.IRQ_TIMER,
        "PIT_FREQUENCY_HZ": pit.HERTZ,
        "CMOS_INDEX_PORT": cmos.PORTS[0],
        "CMOS_DATA_PORT": cmos.PORTS[1],
        "POST_PORT": system.PORT_POST,
        "A20_PORT": system.PORT_FAST_A20,
        "BOCHS_DEBUG_PORT": debug.CONSOLE_PORTS[0],
        "EXIT_PORT": debug.EXIT_PORTS[0],
        "MULTIBOOT_HEADER_MAGIC": loader.HEADER_MAGIC,
        "MULTIBOOT_HEADER_FLAGS": loader.KNOWN_FLAGS,
        "KERNEL_LOAD_ADDRESS": loader.HIGH_START,
    }


def test_the_guests_and_the_machine_agree() -> None:
    ours_of = shared()
    theirs = platform()
    assert {name: theirs[name] for name in ours_of} == ours_of
