"""promtool, which reads what Prometheus would read: metrics, rules, configurations.

Knows its command line; must not know what the files say.
"""

import subprocess

from tests.servers import binaries


def promtool(*words: str, stdin: bytes = b"") -> str:
    """Run it, hold that it is content, and return what it said; the test is skipped where it is missing."""
    binaries.need("promtool")
    program = binaries.find("promtool")
    done = subprocess.run([program.path, *words], input=stdin, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
