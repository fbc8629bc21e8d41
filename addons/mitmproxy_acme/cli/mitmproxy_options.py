"""The options as mitmproxy would read them: from ``config.yaml``, ``config.yml`` and each ``--set``.

This module knows both notations; it must not know what an option means. It does not use mitmproxy, which takes a second
to import.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ..config.options import OPTIONS
from ..core.errors import ConfigError
from ..core.text import one_line

_TYPES = {option.name: option.type for option in OPTIONS}
_FILES = ("config.yaml", "config.yml")  # in mitmproxy's order: the second overrides the first
_MOST_DIGITS = 10
_WORDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list of texts"}


def read_settings(confdir: Path, given: Sequence[str]) -> dict[str, Any]:
    """Return every option that is set: ours in their types, the others as they are written.

    ``--set`` overrides the files. Raises ``ConfigError``.
    """
    settings = _from_files(confdir) | given_settings(given)
    for name, value in settings.items():
        _check_type(name, value)
    return settings


def given_settings(given: Sequence[str]) -> dict[str, Any]:
    """Return what each ``--set`` says. Raises ``ConfigError``."""
    repeated: dict[str, list[str]] = {}
    for argument in given:
        name, has_value, text = argument.partition("=")
        repeated.setdefault(name, []).extend([text] if has_value else [])
    return {name: _typed(name, texts) for name, texts in repeated.items()}


def overruled(confdir: Path, given: Sequence[str]) -> list[str]:
    """Return the options that a proxy would take from its files in spite of ``--set``.

    mitmproxy reads the files last (https://github.com/mitmproxy/mitmproxy/issues/5069). Raises ``ConfigError``.
    """
    files = _from_files(confdir)
    return [name for name, value in given_settings(given).items() if files.get(name, value) != value]


def _from_files(confdir: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in _FILES:
        settings |= _from_file(confdir / name)
    return settings


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # besides its own errors, the library lets those of int, float, date and the stack pass
        raise ConfigError(f"{path} cannot be read: {_why(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a mapping of options; write one per line, such as acme_email: me@example.com")
    return content


def _why(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case MarkedYAMLError(problem=str(problem), problem_mark=mark) if mark is not None and problem:
            return f"line {mark.line + 1}: {one_line(problem)}"
        case YAMLError():
            return one_line(str(error)) or "it is not YAML"
    return f"it has a value that is not what its form or its tag says ({type(error).__name__})"


def _typed(name: str, texts: list[str]) -> Any:
    """Read the values of ``--set``; without a value it empties a list and turns on a switch, as in mitmproxy."""
    kind = _TYPES.get(name, str)
    text = texts[-1] if texts else ""
    if kind is bool:
        if text not in ("true", "false", ""):
            raise ConfigError(f"{name}: {text!r} is neither true nor false")
        return text != "false"
    if kind is int:
        if not (text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS):
            raise ConfigError(f"{name}: {text!r} is not a whole number")
        return int(text)
    return text if kind is str else texts


def _check_type(name: str, value: Any) -> None:
    kind = _TYPES.get(name)
    if kind is None:
        return
    if isinstance(value, list) and not isinstance(kind, type):
        if not all(isinstance(entry, str) for entry in value):  # the entry is not shown: it may be a secret
            raise ConfigError(f"{name}: an entry is not a text; write each entry as text, in quotes if necessary")
        return
    if not (isinstance(kind, type) and isinstance(value, kind)):
        wanted = _WORDS[kind if isinstance(kind, type) else list]
        # The value is not shown: it may be a secret.
        raise ConfigError(f"{name}: the value is {_WORDS.get(type(value), 'something else')}; it must be {wanted}")
