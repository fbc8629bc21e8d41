"""What a Python with this folder on PYTHONPATH runs first: its clock is as far off as the file $ACME_SOAK_CLOCK says.

In seconds; read at most ten times a second. Knows Python's clock only: ``time.time`` and ``time.time_ns``, which
everything in the addon reads. (libfaketime 0.9.10 of Debian 12 was tried: under it ``time.sleep`` fails with EINVAL and
threads of CPython 3.13 stand still for seconds.) Monotonic clocks, and OpenSSL's, stay right.
"""

import os
import time

_EVERY = 0.1
_file, _true_time, _true_time_ns, _monotonic = os.environ["ACME_SOAK_CLOCK"], time.time, time.time_ns, time.monotonic
_offset, _read_at = 0, float("-inf")


def _off() -> int:
    global _offset, _read_at
    if (now := _monotonic()) - _read_at > _EVERY:
        _read_at = now
        try:
            with open(_file) as file:
                _offset = int(file.read() or _offset)
        except (OSError, ValueError):  # it is just being written
            pass
    return _offset


def _time() -> float:
    return _true_time() + _off()


def _time_ns() -> int:
    return _true_time_ns() + _off() * 1_000_000_000


time.time, time.time_ns = _time, _time_ns
