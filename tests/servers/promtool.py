"""promtool, which reads what Prometheus would read: metrics, rules, configurations.

Knows its command line; must not know what the files say.
"""

import subprocess

from tests.servers import binaries


def promtool(*words: str, stdin: bytes = b"") -> str:
    """Run it, require success, and return its output; skip the test if it is missing."""
    binaries.need("promtool")
    program = binaries.find("promtool")
    done = subprocess.run([program.path, *words], input=stdin, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
