"""The project on a system without Unix: every module can be imported, files are shared, and what is missing is said."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "addons").rglob("*.py"), *(ROOT / "storage").rglob("*.py")]
_OF_ONE_SYSTEM = {"fcntl", "pwd", "grp", "resource", "termios", "pty", "tty", "syslog", "msvcrt", "winreg", "_winapi"}


@pytest.fixture(scope="module")
def windows() -> dict[str, Any]:
    """What ``simulated_windows`` printed."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.mitmproxy_acme.simulated_windows"],  # hooks are defined twice
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'addons'}{os.pathsep}{ROOT / 'storage'}"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def test_every_module_can_be_imported(windows: dict[str, Any]) -> None:
    assert len(windows["modules"]) > 200
    assert {"acme_storage.file", "mitmproxy_acme.cli.main", "mitmproxy_acme.mitm.supervisor"} <= {*windows["modules"]}


def test_files_are_stored_and_locked(windows: dict[str, Any]) -> None:
    assert windows["files"] == {
        "swapped": [True, False],
        "refused by": "process",
        "kept": ["2", ["a/b"]],
        "left": [".locks"],
    }


def test_paths_have_no_reserved_names_and_no_limit(windows: dict[str, Any]) -> None:
    r"""``\\?\`` makes of con.example.com a file name; a path without a drive is refused."""
    assert windows["paths"] == {
        "folder": r"\\?\C:\Users\me\acme",
        "share": r"\\server\share",
        "url": r"C:\its\path",
        "unix url": None,
    }


def test_deploy_hook_runs(windows: dict[str, Any]) -> None:
    """The folder that a killed process left counts as abandoned when it is old."""
    assert windows["command"] == {"printed": "hello\n", "code": 0, "abandoned": [False, True]}


def test_what_only_unix_has_is_refused_with_a_sentence(windows: dict[str, Any]) -> None:
    refused = windows["refused"]
    assert "this system has no Unix sockets (unix:/nowhere/admin.sock); write 127.0.0.1:8008" in refused["socket"]
    assert refused["workers"].startswith("2 mitmproxy-acme: Windows cannot run several workers")


def test_only_one_module_of_each_package_imports_what_one_system_has() -> None:
    found = {
        str(path.relative_to(ROOT)) for path in SOURCES if _OF_ONE_SYSTEM & {*imports(ast.parse(path.read_text()))}
    }
    assert found == {"addons/mitmproxy_acme/core/operating_system.py", "storage/acme_storage/operating_system.py"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that a source imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
