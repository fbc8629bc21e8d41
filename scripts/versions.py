"""Which combination of versions this environment has: ``python -m scripts.versions`` prints it in one line.

scripts/check and scripts/test --lowest begin with it, so that a log says what was tested.
"""

import platform
from importlib import metadata

_NAMED = ("mitmproxy", "cryptography", "acme", "josepy", "pyOpenSSL", "tornado", "requests", "redis", "SQLAlchemy")


def main() -> None:
    """Print the line."""
    system = platform.system()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print("tested with", ", ".join([python, *(f"{name} {metadata.version(name)}" for name in _NAMED), system]))


if __name__ == "__main__":
    main()
