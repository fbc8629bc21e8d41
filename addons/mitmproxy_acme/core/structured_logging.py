"""Log lines with fields, written as text or as JSON.

This module knows Python's logging; it must not know what happened, or where mitmproxy writes its log. A line is a
sentence for people; ``extra=fields(…)`` gives the same to programs: the ``event`` and its details.
"""

import datetime
import json
import logging
from collections.abc import Iterable

_ATTRIBUTE = "acme"
_LOGGERS = ("mitmproxy_acme", "acme_storage")
_RESERVED = ("time", "level", "logger", "message", "exception")


def fields(event: str, **details: str | float | bool | None) -> dict[str, dict[str, object]]:
    """Return what ``extra=`` takes.

    Use the same words everywhere: ``name`` (the certificate's), ``node``, ``ca``, ``seconds`` (how long), ``reason``.
    """
    known = {name: value for name, value in details.items() if value is not None}
    return {_ATTRIBUTE: {"event": event, **known}}


class JsonFormatter(logging.Formatter):
    """Writes our lines as JSON, and leaves others to the formatter that was set before."""

    def __init__(self, others: logging.Formatter | None) -> None:
        super().__init__()
        self.others = others

    def format(self, record: logging.LogRecord) -> str:
        if record.name.partition(".")[0] in _LOGGERS:
            return to_json(record)
        return self.others.format(record) if self.others is not None else super().format(record)


def to_json(record: logging.LogRecord) -> str:
    """Write one object without a line break: time (RFC 3339), level, logger and message, then the line's fields."""
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    line: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if record.exc_info:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    line |= {name: value for name, value in getattr(record, _ATTRIBUTE, {}).items() if name not in _RESERVED}
    return json.dumps(line, default=str)


def set_log_format(log_format: str, handlers: Iterable[logging.Handler]) -> None:
    """Have these handlers write our lines as ``json``, or as they did before (``text``)."""
    for handler in handlers:
        formatter = handler.formatter
        before = formatter.others if isinstance(formatter, JsonFormatter) else formatter
        handler.setFormatter(JsonFormatter(before) if log_format == "json" else before)
