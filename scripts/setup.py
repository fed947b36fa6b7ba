# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the checkout's own environment in .venv, or leave it alone when it is up to date.

Run by scripts/setup; `--check` only tells, by its status, whether there is nothing to do. This file is parsed by whatever
python3 a machine has, if only to say that it is too old, and starts in a few milliseconds: hence few imports.

1. .venv/emu-setup, the stamp, names what the environment was made from. It is written last, by a rename.
2. While packages are being installed the stamp is blank, and a blank stamp means: start over from nothing.
3. A .venv without a stamp is somebody else's, and stays as it is; in one with a stamp, only what pip and venv made is removed.
4. The lock is held by pip too, so that a set-up that was killed and the next one never install at once.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(ENVIRONMENT, "bin", "python")
STAMP = os.path.join(ENVIRONMENT, "emu-setup")
LOCK = os.path.join(ROOT, ".venv.lock")
IMAGES = os.path.join(ROOT, "emu", "images", "guests.json")
SOURCES = ("pyproject.toml", "hatch_build.py", "emu/__init__.py", "guests", "firmware")
OLDEST_PYTHON = (3, 11)
# What venv and pip make at the top of an environment; what else is there is the user's.
MADE = ("bin", "include", "lib", "lib64", "share", "etc", "man", "pyvenv.cfg", ".gitignore", "CACHEDIR.TAG")
BLANK = ("", "", "")  # the fields of a stamp: sources, interpreter, packages


def fail(message: str, status: int = 1) -> None:
    print("emu: " + message, file=sys.stderr)
    sys.exit(status)


def say(message: str) -> None:
    print("emu: " + message, file=sys.stderr, flush=True)


def source_files() -> "list[str]":
    files = []
    for source in SOURCES:
        path = os.path.join(ROOT, source)
        if os.path.isfile(path):
            files.append(path)
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            files += [os.path.join(folder, name) for name in sorted(names)]
    return files


def sources_now() -> str:
    """Names, sizes and times of what is built: reading them takes a millisecond, their contents several."""
    lines = []
    for path in source_files():
        info = os.stat(path)
        lines.append(f"{os.path.relpath(path, ROOT)}:{info.st_size}:{info.st_mtime_ns}")
    return " ".join(lines)


def interpreter_now() -> str:
    """Which Python runs this, and where: an environment does not survive a change of either."""
    return f"{ROOT} {sys.version}".replace("\n", " ")


def interpreter_of_environment() -> str:
    """The same of the environment's Python, or nothing when it does not run."""
    import subprocess

    command = [PYTHON, "-I", "-S", "-c", "import sys; print(sys.version.replace('\\n', ' '))"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{ROOT} {os.fsdecode(done.stdout).strip()}"


def read_stamp() -> "tuple[str, ...]":
    try:
        with open(STAMP, encoding="utf-8", errors="surrogateescape") as stamp:
            fields = tuple(stamp.read().split("\n"))
    except OSError:
        return BLANK
    return fields if len(fields) == len(BLANK) else BLANK


def write_stamp(*fields: str) -> None:
    with open(STAMP + ".new", "w", encoding="utf-8", errors="surrogateescape") as stamp:
        stamp.write("\n".join(fields))
    os.replace(STAMP + ".new", STAMP)


def is_current(sources: str, interpreter: str) -> bool:
    return read_stamp()[:2] == (sources, interpreter) and os.path.exists(IMAGES)


def run(what: str, lock: int, *command: str) -> None:
    """Quietly, unless it fails."""
    import subprocess

    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        pass_fds=[lock], check=False,
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        fail(f"set-up failed: {what} (the lines above say why)")


def make_environment(lock: int) -> None:
    import importlib.util
    import shutil

    if importlib.util.find_spec("ensurepip") is None:
        fail("this Python cannot make an environment: install python3-venv (on Debian: apt-get install python3-venv)")
    if os.path.isdir(ENVIRONMENT) and os.listdir(ENVIRONMENT) and not os.path.exists(STAMP):
        fail(f"{ENVIRONMENT} was not made by scripts/setup: remove or rename it")
    say("setting up, once: an environment in .venv, packages, guests and firmware")
    os.makedirs(ENVIRONMENT, exist_ok=True)
    write_stamp(*BLANK)
    for name in MADE:
        path = os.path.join(ENVIRONMENT, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    run("making an environment", lock, sys.executable, "-m", "venv", ENVIRONMENT)


def requirements() -> "list[str]":
    """What building, running and testing need, as pyproject.toml has it."""
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        table = tomllib.load(file)
    project = table["project"]
    return [*table["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["test"]]


def set_up(sources: str, lock: int) -> None:
    """The compiler is a package of the environment, so that the guests are built in it and it is unpacked only once."""
    _, interpreter, packages = read_stamp()
    wanted = requirements()
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    if not interpreter or interpreter != interpreter_of_environment():
        make_environment(lock)
        interpreter, packages = interpreter_of_environment(), ""
    else:
        say("setting up again, since the sources changed: packages, guests and firmware")
    if packages != str(wanted):
        write_stamp(*BLANK)
        run("installing packages", lock, *pip, *wanted)
    write_stamp("", interpreter, str(wanted))
    run("building guests and firmware", lock, *pip, "--no-deps", "--no-build-isolation", "--editable", ".")
    write_stamp(sources, interpreter, str(wanted))


def set_up_alone() -> None:
    import fcntl

    with open(LOCK, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        sources = sources_now()
        if not is_current(sources, interpreter_of_environment()):
            set_up(sources, lock.fileno())


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        sys.exit(not is_current(sources_now(), interpreter_now()))
    if sys.version_info < OLDEST_PYTHON:
        fail(f"python3 is Python {sys.version.split()[0]}: 3.11 or later is needed, first in PATH")
    try:
        set_up_alone()
    except OSError as error:
        fail(f"set-up failed: {error.filename or ENVIRONMENT}: {error.strerror}")
    except KeyboardInterrupt:
        fail("set-up interrupted", 130)


if __name__ == "__main__":
    main()
