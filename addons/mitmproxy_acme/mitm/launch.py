"""What ``run`` and ``serve`` start: which of mitmproxy's programs, and with what.

This module must not import mitmproxy, which takes a second: ``launcher`` does.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class Tool(StrEnum):
    """mitmproxy's three programs."""

    DUMP = "mitmdump"
    WEB = "mitmweb"
    CONSOLE = "mitmproxy"


@dataclass(frozen=True, slots=True)
class ServedSite:
    """What the start screen says of a name: ``managed`` certificates are there from the start, others on demand."""

    url: str
    upstream: str
    name: str
    managed: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: ``arguments`` are those of the tool, ``command`` is the command that starts it.

    ``settings`` are options as ``--set`` writes them. They override the files, which ``--set`` does not
    (https://github.com/mitmproxy/mitmproxy/issues/5069). The start screen shows the ``sites``, if any.
    """

    arguments: Sequence[str]
    tool: Tool = Tool.DUMP
    settings: Sequence[str] = ()
    sites: Sequence[ServedSite] = ()
    command: str = "run"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        sites = [ServedSite(**site) for site in document["sites"]]
        return cls(**{**document, "tool": Tool(document["tool"]), "sites": sites})
