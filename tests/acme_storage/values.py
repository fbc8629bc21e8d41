"""Values that show whether they were torn. Imports nothing, for processes that are started by the dozen."""


def uniform(number: int) -> bytes:
    """Return a value that shows if it is a mixture: one byte repeated, as often as that byte says."""
    byte = number % 256
    return bytes([byte]) * (1000 + 31 * byte)


def is_whole(value: bytes) -> bool:
    """Say whether ``value`` is one of ``uniform``."""
    return value == uniform(value[0])
