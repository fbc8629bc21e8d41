"""Load me: ``mitmdump -s acme_addon.py``.

In a Python that cannot run the addon this logs one sentence that says what to do: mitmdump then ends, and a mitmproxy
or mitmweb that already runs goes on without it. So this file has only what every Python 3 can read.
"""

import logging
import re
import sys
from pathlib import Path

from mitmproxy import version

_PYTHON = (3, 12)
_MITMPROXY = (12, 2, 3)  # the first one that admits a cryptography which can offer several groups (47)
_FOLDER = Path(__file__).resolve().parent.parent

if (_FOLDER / "storage" / "acme_storage").is_dir():  # a checkout that is not installed
    sys.path.append(str(_FOLDER / "storage"))


def _load() -> list:  # type: ignore[type-arg]  # Python 3.8 has no list[object]
    """Return the addons. Raises ``ImportError`` if something is missing or too old."""
    if sys.version_info < _PYTHON:
        raise ImportError("Python {}.{} or newer is needed, and this is {}.{}".format(*_PYTHON, *sys.version_info[:2]))
    if tuple(map(int, re.findall(r"\d+", version.VERSION)[:3])) < _MITMPROXY:
        raise ImportError("mitmproxy {}.{}.{} or newer is needed, and this is {}".format(*_MITMPROXY, version.VERSION))
    from mitmproxy_acme.mitm.addon import AcmeAddon

    return [AcmeAddon()]


def _explain(problem: object) -> str:
    if getattr(sys, "frozen", False):
        advice = (
            "nothing can be installed into a standalone mitmproxy, which has a Python of its own; install mitmproxy "
            "together with the addon from the Python Package Index, and run that mitmdump"
        )
    elif sys.version_info < _PYTHON:
        advice = "install mitmproxy and the addon with such a Python, and run that mitmdump"
    elif (_FOLDER / "pyproject.toml").is_file():
        advice = f"run '{sys.executable}' -m pip install '{_FOLDER}', or the mitmdump of an environment that has it all"
    else:
        advice = "install mitmproxy-acme for this Python, or run the mitmdump that is beside the command mitmproxy-acme"
    return f"mitmproxy-acme cannot run in {sys.executable}: {problem}; {advice} (docs/how-to/install.md)"


try:
    addons = _load()
except ImportError as _error:
    addons = []
    logging.getLogger(__name__).error("%s", _explain(_error))
