"""The exceptions of a client library, all of them, to prove that none gets through an adapter."""

import builtins
from contextlib import suppress
from types import ModuleType

_ARGUMENTS: list[tuple[object, ...]] = [
    (), ("x",), ("1 host:1",), ("x", "x"), ("x", None, None), ("x", "x", {}, Exception("x")), ("x", "x", "x", "x", "x"),
]  # fmt: skip


def exceptions_in(*modules: ModuleType) -> list[Exception]:
    """Return one of each exception class that these modules show."""
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, builtins.Warning)
    }
    own = [kind for kind in found if kind.__module__ != "builtins" and not kind.__name__.startswith("_")]
    return [_instance(kind) for kind in sorted(own, key=lambda kind: (kind.__module__, kind.__qualname__))]


def _instance(kind: type[Exception]) -> Exception:
    for arguments in _ARGUMENTS:
        with suppress(TypeError, ValueError):
            return kind(*arguments)
    raise AssertionError(f"no arguments known that make a {kind}")
