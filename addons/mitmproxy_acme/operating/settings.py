"""Settings as mitmproxy would read them: ``config.yaml`` in its folder, then each ``--set``.

This module knows the two notations; it must not know what an option means. It reads them itself, for the command line
must answer without starting a proxy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..errors import ConfigError
from ..options import OPTIONS

_TYPES = {option.name: option.type for option in OPTIONS}


def read_settings(confdir: Path, given: Sequence[str]) -> dict[str, Any]:
    """Return every option that is set, ours in its type and the others as they stand.

    Raises ``ConfigError`` for a file or an argument that cannot be read.
    """
    settings = dict(_from_file(confdir / "config.yaml"))
    repeated: dict[str, list[str]] = {}
    for argument in given:
        name, _, text = argument.partition("=")
        repeated.setdefault(name, []).append(text)
    for name, texts in repeated.items():
        settings[name] = _typed(name, texts)
    for name, value in settings.items():
        _check_type(name, value)
    return settings


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a list of options; write one a line, such as acme_email: me@example.com")
    return content


def _typed(name: str, texts: list[str]) -> Any:
    kind = _TYPES.get(name, str)
    text = texts[-1]
    if kind is bool:
        if text not in ("true", "false", ""):
            raise ConfigError(f"{name}: {text!r} is neither true nor false")
        return text != "false"
    if kind is int:
        if not text.isdigit():
            raise ConfigError(f"{name}: {text!r} is not a whole number")
        return int(text)
    return text if kind is str else texts


def _check_type(name: str, value: Any) -> None:
    kind = _TYPES.get(name)
    if kind is None:
        return
    right = isinstance(value, kind) if isinstance(kind, type) else isinstance(value, list)
    if not right:
        wanted = kind.__name__ if isinstance(kind, type) else "list of texts"
        # Never the value: it may be a secret.
        raise ConfigError(f"{name}: a {type(value).__name__} is given, and it should be a {wanted}")
