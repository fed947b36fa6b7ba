# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution: what is in it, that it can be made again byte for byte, that it runs elsewhere; and the set-up script.

Nothing here uses the network: builds find the backend and the compiler in the running environment, and the environment
that a wheel is installed into finds the dependencies there.
"""

from __future__ import annotations

import ast
import configparser
import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

import emu

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = f"emu_vmm-{emu.__version__}"
INFO = f"{NAME}.dist-info"
GUESTS = [guest["name"] for guest in tomllib.loads((ROOT / "guests" / "guests.toml").read_text(encoding="utf-8"))["guest"]]
SYSTEMS = ["os-i386", "os-pae", "os-x86_64"]  # builds of guests/os
SUITE = ROOT / "guests" / "suite"
SUITE_IMAGES = [
    f"suite/{guest['name']}-{name}.bin"
    for guest in tomllib.loads((SUITE / "guests.toml").read_text(encoding="utf-8"))["guest"]
    for name in guest["formats"]
]
SUITE_FILES = [
    "suite/suite.toml",
    "suite/os.img",
    *(path.relative_to(SUITE.parent).as_posix() for path in (SUITE / "golden").iterdir()),
]
# Suffixes in a wheel; licence and metadata have none.
INTERPRETED = {".py", ".elf", ".bin", ".img", ".rom", ".json", ".toml", ".trace", ".txt", ""}


def distribution(kind: str, source: Path, out: Path) -> Path:
    """What `python -m build` makes of `source`, in `out`."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distribution("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def wheel_of(sdist: Path, folder: Path) -> Path:
    """A wheel from a source distribution unpacked in `folder`: the checkout's own images stay as they are."""
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later ask for one
        archive.extractall(folder)
    return distribution("wheel", folder / NAME, folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(sdist, tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read_from(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return email.message_from_string(read_from(wheel, f"{INFO}/METADATA"))


def modules() -> set[str]:
    found = [*(ROOT / "emu").rglob("*.py"), *(ROOT / "emu" / "host" / "scenarios").glob("*.toml")]
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_sdist_has_all_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    wanted = {"pyproject.toml", "hatch_build.py", "LICENSE", "README.md", "CHANGELOG.md", ".ci/run"}
    wanted |= {"scripts/emu", "scripts/test", "scripts/setup", "scripts/setup.py", "docs/architecture.md"}
    wanted |= {"guests/guests.toml", "guests/build.py", "guests/lib/kernel.ld", "firmware/build.py", "firmware/reset.S"}
    wanted |= modules() | {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert not wanted - names
    assert not [name for name in names if name.startswith(("emu/images/", ".venv")) or "__pycache__" in name]


def test_wheel_is_for_every_machine(wheel: Path) -> None:
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    header = email.message_from_string(read_from(wheel, f"{INFO}/WHEEL"))
    assert (header["Root-Is-Purelib"], header.get_all("Tag")) == ("true", ["py3-none-any"])


def test_wheel_has_the_package_the_guests_and_the_rom(wheel: Path) -> None:
    others = ["firmware.rom", "guests.json", "made.txt", "bootsector.img", *SUITE_IMAGES, *SUITE_FILES]
    images = {
        f"emu/images/{name}"
        for name in [*(f"{guest}.elf" for guest in GUESTS), *(f"{system}.bin" for system in SYSTEMS), *others]
    }
    assert {name for name in names_in(wheel) if name.startswith("emu/")} == modules() | images


def test_wheel_has_no_sources_to_compile(wheel: Path) -> None:
    names = names_in(wheel)
    assert {name.partition("/")[0] for name in names} == {"emu", INFO}
    assert {Path(name).suffix for name in names if not name.startswith(INFO)} <= INTERPRETED


def test_wheel_names_command_version_and_licence(wheel: Path, metadata: Message) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(read_from(wheel, f"{INFO}/entry_points.txt"))
    assert dict(scripts["console_scripts"]) == PROJECT["project"]["scripts"]
    assert (metadata["Name"], metadata["Version"]) == ("emu-vmm", emu.__version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("GPL-2.0-or-later", "LICENSE")
    assert "GNU GENERAL PUBLIC LICENSE" in read_from(wheel, f"{INFO}/licenses/LICENSE")


def test_command_is_a_function_that_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["emu"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_wheel_is_the_same_when_built_elsewhere(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    assert wheel_of(sdist, tmp_path / "somewhere else").read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and, through a path file, the dependencies of this one.

    The path files of the added folder are not read, so that an editable emu in it is not found.
    """
    folder = tmp_path_factory.mktemp("installed") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin"


def run_installed(program: Path, *arguments: str | Path) -> str:
    """Standard output of a program that has neither the checkout nor a compiler at hand."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"PATH": "/nowhere"}
    done = subprocess.run([program, *arguments], cwd=program.parent, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_installed_wheel_lists_its_guests(installed: Path) -> None:
    lines = run_installed(installed / "emu", "guests").splitlines()
    assert [line.split()[0] for line in lines] == [*GUESTS, *SYSTEMS, "bootsector"]


def test_installed_wheel_uses_its_own_files(installed: Path) -> None:
    code = "import emu.images as i; print(*[i.__file__, *(g.path for g in i.guests())], len(i.firmware()), sep='\\n')"
    *files, rom_bytes = run_installed(installed / "python", "-c", code).splitlines()
    assert rom_bytes == str(0x1_0000)
    assert len(files) == 1 + len(GUESTS) + len(SYSTEMS)
    for file in files:
        assert Path(file).is_relative_to(installed.parent)


def test_installed_wheel_gives_pytest_the_cases_of_a_suite(installed: Path, tmp_path: Path) -> None:
    """Collected only: to run them would compile the native code for this environment."""
    (tmp_path / "suite.toml").write_text('[[case]]\nname = "greets"\nimage = "hello"\n')
    lines = run_installed(installed / "python", "-m", "pytest", "--collect-only", "-q", tmp_path).splitlines()
    assert [line.rpartition("::")[2] for line in lines if "::" in line] == ["greets[shadow]", "greets[nested]"]


def distribution_name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_-]+", requirement)
    assert found
    return found[0].lower()


def imported() -> set[str]:
    """Top-level names that the package imports, but for its own and the standard library's."""
    found: set[str] = set()
    for module in modules():
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - {"emu"} - sys.stdlib_module_names


def test_dependencies_are_what_is_imported() -> None:
    """All but pytest: it loads the one module that imports it."""
    owners = packages_distributions()
    needed = {owners[name][0].lower() for name in imported() - {"pytest"}}
    assert needed == {distribution_name(requirement) for requirement in PROJECT["project"]["dependencies"]}


def test_the_compiler_is_pinned_alike_everywhere() -> None:
    lists = [PROJECT["build-system"]["requires"], *PROJECT["project"]["optional-dependencies"].values()]
    pins = {requirement for each in lists for requirement in each if distribution_name(requirement) == "ziglang"}
    assert len(pins) == 1
    assert re.fullmatch(r"ziglang==[0-9.]+", pins.pop())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the set-up looks at before it installs anything."""
    shutil.copytree(ROOT / "scripts", tmp_path / "checkout" / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "checkout")
    return tmp_path / "checkout"


def test_set_up_leaves_a_strange_environment_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").touch()
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # a python3 that is new enough
    done = subprocess.run([checkout / "scripts" / "emu"], env=os.environ | path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"emu: {checkout / '.venv'} was not made by scripts/setup: remove or rename it\n"
    assert [path.name for path in (checkout / ".venv").iterdir()] == ["precious"]


def load(path: Path) -> ModuleType:
    """A script of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_set_up_keeps_what_the_user_put_into_its_environment(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made anew, as for another Python: what venv and pip make is removed, through no link, and nothing else."""
    set_up = load(checkout / "scripts" / "setup.py")
    environment, outside = checkout / ".venv", checkout / "outside"
    for folder in (environment / "bin", environment / "notes", outside):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (environment / "lib").symlink_to(outside)
    (environment / "emu-setup").write_text("a\nb\nc")
    monkeypatch.setattr(set_up, "run", lambda *_: None)
    set_up.make_environment(0)
    assert sorted(path.name for path in environment.iterdir()) == ["emu-setup", "notes"]
    assert (environment / "notes" / "file").exists()
    assert (outside / "file").exists()


def test_a_build_replaces_what_was_built_and_nothing_else(tmp_path: Path) -> None:
    build = load(ROOT / "hatch_build.py")
    target = tmp_path / "images"

    def build_again(**files: str) -> None:
        scratch = tmp_path / "new"
        (scratch / "suite").mkdir(parents=True)
        for name, text in files.items():
            (scratch / name.replace("_", "/")).write_text(text)
        build.replace_made(target, scratch)
        shutil.rmtree(scratch)

    build_again(a="1", b="1", suite_c="1")
    (target / "mine").write_text("mine")
    (target / "suite" / "mine").write_text("mine")
    build_again(a="2", suite_d="2")
    there = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert there == {"a": "2", "suite/d": "2", "mine": "mine", "suite/mine": "mine", "made.txt": "a\nsuite/d\n"}


@pytest.mark.parametrize("script", ["guests/build.py", "firmware/build.py"])
def test_a_build_by_hand_writes_over_nothing(script: str, tmp_path: Path) -> None:
    for name in ("hello.elf", "firmware.rom"):
        (tmp_path / name).write_text("mine")
    done = subprocess.run([sys.executable, ROOT / script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"hello.elf": "mine", "firmware.rom": "mine"}


def test_set_up_without_python_is_one_line(checkout: Path) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run([checkout / "scripts" / "emu"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "emu: there is no python3: Python 3.11 or later is needed\n")


def test_set_up_can_be_read_by_a_python_that_is_too_old() -> None:
    ast.parse((ROOT / "scripts" / "setup.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_scripts_can_be_executed() -> None:
    for script in ("scripts/emu", "scripts/test", "scripts/setup", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK), script
