"""A script for mitmproxy: writes down which functions of the addon are called, in order, in all threads.

SIGUSR1 begins a new record, and writes the one before it to the file that ``CALL_RECORD`` names: a line for each call,
with the file in the package and the qualified name of the function. It must not import the addon.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

_PACKAGE = "/mitmproxy_acme/"

_calls: list[str] = []


def _note(frame: FrameType, event: str, _: object) -> None:
    if event == "call" and _PACKAGE in frame.f_code.co_filename:
        _calls.append(f"{frame.f_code.co_filename.rpartition(_PACKAGE)[2]} {frame.f_code.co_qualname}")


def _begin(*_: object) -> None:
    calls = _calls.copy()
    _calls.clear()
    target = Path(os.environ["CALL_RECORD"])
    unfinished = target.with_suffix(".new")
    unfinished.write_text("\n".join(calls))
    unfinished.replace(target)


threading.setprofile_all_threads(_note)
sys.setprofile(_note)
signal.signal(signal.SIGUSR1, _begin)
