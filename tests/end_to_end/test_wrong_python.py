"""``mitmdump -s acme_addon.py`` in a Python that cannot run the addon: one sentence says what to do, and it ends."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.mitmdump import SCRIPT

ROOT = SCRIPT.parents[1]
_NO_JOSEPY = "sys.modules['josepy'] = None"
# Imports mitmproxy once, for it takes most of a second, and forks at each order: statements and the script. Prints the
# exit code and the output, as JSON.
_FORKING = """
import json, os, signal, sys, tempfile
import mitmproxy.tools.dump, mitmproxy.tools.main, mitmproxy.version

for line in sys.stdin:
    statements, script = json.loads(line)
    with tempfile.TemporaryFile() as output:
        if not (child := os.fork()):
            signal.alarm(60)  # it ends at once, or never
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            exec(statements)
            mitmproxy.tools.main.mitmdump(["-s", script, "-p", "0"])
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        print(json.dumps([code, output.read().decode()]), flush=True)
"""

type Start = Callable[..., str]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Return what mitmdump printed and that it ended with exit code 1; after the script come statements that spoil its
    Python, in which ``sys`` is imported, and so is all of mitmproxy.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-I", "-c", _FORKING], stdin=pipe, stdout=pipe, text=True) as python:

        def start(script: Path, *before: str) -> str:
            assert python.stdin
            assert python.stdout
            print(json.dumps(["\n".join(before), str(script)]), file=python.stdin, flush=True)
            code, printed = json.loads(python.stdout.readline())
            assert code == 1, printed
            return str(printed)

        yield start


def sentence(printed: str) -> str:
    """Return the sentence; mitmproxy prints nothing else but that it loads, listens and ends."""
    assert "Traceback" not in printed
    (line,) = (line for line in printed.splitlines() if "cannot run" in line)
    return line.partition("] ")[2]


def test_missing_module_is_one_sentence(start: Start) -> None:
    """It names the module, the Python, and the command that installs what is missing from this checkout."""
    said = sentence(start(SCRIPT, _NO_JOSEPY))
    assert said.startswith(f"mitmproxy-acme cannot run in {sys.executable}: ")
    assert "josepy" in said
    assert f"run '{sys.executable}' -m pip install '{ROOT}', or the mitmdump of an environment" in said


def test_script_alone_is_one_sentence(start: Start, tmp_path: Path) -> None:
    """A copy of the file without its package, and a script of another Python's environment."""
    script = Path(shutil.copy(SCRIPT, tmp_path / "acme_addon.py"))
    said = sentence(start(script, "sys.modules['mitmproxy_acme'] = None"))
    assert "mitmproxy_acme" in said
    assert "run the mitmdump that is beside the command mitmproxy-acme" in said


def test_standalone_binary_is_told_to_install_from_the_index(start: Start) -> None:
    said = sentence(start(SCRIPT, _NO_JOSEPY, "sys.frozen = True"))
    assert "nothing can be installed into a standalone mitmproxy" in said
    assert "from the Python Package Index" in said


def test_old_python_is_named(start: Start) -> None:
    said = sentence(start(SCRIPT, "sys.version_info = (3, 11, 2, 'final', 0)"))
    assert (
        "Python 3.12 or newer is needed, and this is 3.11; install mitmproxy and the addon with such a Python" in said
    )


@pytest.mark.parametrize("old", ["12.2.2", "11.0.2", "10.1.6 (dev)"])
def test_old_mitmproxy_is_named(start: Start, old: str) -> None:
    said = sentence(start(SCRIPT, f"mitmproxy.version.VERSION = {old!r}"))
    assert f"mitmproxy 12.2.3 or newer is needed, and this is {old};" in said


def test_file_names_the_versions_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = SCRIPT.read_text()
    python = re.search(r"_PYTHON = \((\d+), (\d+)\)", text)
    mitmproxy = re.search(r"_MITMPROXY = \((\d+), (\d+), (\d+)\)", text)
    assert python
    assert mitmproxy
    assert project["requires-python"] == f">={'.'.join(python.groups())}"
    assert f"mitmproxy>={'.'.join(mitmproxy.groups())},<13" in project["dependencies"]
