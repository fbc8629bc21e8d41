"""Finds a server's program on this machine, and whether it is new enough.

Knows paths and features of binaries; must not know how a server is started. Uses only the standard library of Python
3.11: ``scripts/servers`` imports it before any environment exists.
"""

import glob
import os
import shutil
from pathlib import Path
from typing import NamedTuple, NoReturn

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "servers"

# What a binary must contain to be new enough. Distributions carry Pebble 2.4 and 2.6 without profiles, and
# `pebble -version` prints only "dev": so ask for the feature, not for the number.
_FEATURES = {"pebble": b"set-renewal-info", "pebble-challtestsrv": b"dnsserver"}

# Where systems keep programs that they put on no PATH.
_FOLDERS = {
    "/usr/lib/postgresql/*/bin": ("postgres", "initdb"),  # Debian
    "/usr/pgsql-*/bin": ("postgres", "initdb"),  # Fedora's upstream packages
    "/opt/homebrew/opt/postgresql*/bin": ("postgres", "initdb"),
    "/usr/local/opt/postgresql*/bin": ("postgres", "initdb"),
}


class Missing(RuntimeError):
    """A server's program is not on this machine."""


class Program(NamedTuple):
    """The program to execute, and the environment variables that it needs besides the usual ones."""

    path: str
    environment: dict[str, str]


def find(name: str) -> Program:
    """The program `name`: from $ACME_TEST_<NAME>, else PATH, else .cache/servers; raises Missing.

    Missing it is also where $ACME_TEST_ONLY lists programs, and not this one.
    """
    if _is_left_out(name):
        raise Missing(f"{name} is not among $ACME_TEST_ONLY")
    if path := installed(name):
        return Program(path, {})
    folders = ("lib/chromium", "bin", "sbin", "lib/postgresql/*/bin")  # Chromium's in bin only calls the one in lib
    for pattern in (f"{CACHE}/*/usr/{folder}/{name}" for folder in folders):
        for path in sorted(glob.glob(pattern), reverse=True):
            return Program(path, _libraries(Path(path)))
    raise Missing(f"{name} is neither on PATH nor in {CACHE}: run scripts/servers, or set {_variable(name)}")


def installed(name: str) -> str | None:
    """The program `name` as the developer provides it: $ACME_TEST_<NAME>, taken as it is, or PATH if new enough.

    Or a folder where the system keeps such programs.
    """
    if named := os.environ.get(_variable(name)):
        return named
    folders = [folder for folder, names in _FOLDERS.items() if name in names]
    kept = [path for folder in folders for path in sorted(glob.glob(f"{folder}/{name}"), reverse=True)]
    path = shutil.which(name) or next(iter(kept), None)
    return path if path and _new_enough(name, Path(path)) else None


def need(*names: str) -> None:
    """For a fixture's first line: the calling test is skipped (in CI: fails) unless all these programs are here."""
    for name in names:
        try:
            find(name)
        except Missing as error:
            missing(error)


def missing(error: Missing) -> NoReturn:
    """Skip the calling test; with CI=true fail it, so that a green run never hides a test that did not run.

    With $ACME_TEST_ONLY it is skipped in any case.
    """
    import pytest

    if "ACME_TEST_ONLY" not in os.environ and os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def _is_left_out(name: str) -> bool:
    wanted = os.environ.get("ACME_TEST_ONLY")
    return wanted is not None and name not in wanted.split()


def _variable(name: str) -> str:
    return "ACME_TEST_" + name.upper().replace("-", "_")


def _new_enough(name: str, path: Path) -> bool:
    feature = _FEATURES.get(name)
    return feature is None or feature in path.read_bytes()


def _libraries(path: Path) -> dict[str, str]:
    """Return what a package that was unpacked, but not installed, needs to find its libraries."""
    usr = next(folder for folder in path.parents if folder.name == "usr")
    patterns = ("lib/*-linux-gnu*", "lib/*-linux-gnu*/pulseaudio")  # Chromium wants the sound of a desktop
    folders = sorted(str(folder) for pattern in patterns for folder in usr.glob(pattern))
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}
