"""Log lines as JSON: which they are, what they have, and what stays as it was."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from mitmproxy_acme.core.structured_logging import fields, set_log_format, to_json


@pytest.fixture
def written() -> Iterator[tuple[logging.Handler, io.StringIO]]:
    """A handler of the root logger with a formatter of its own, and what it writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("[plain] %(message)s"))
    logging.getLogger().addHandler(handler)
    yield handler, stream
    logging.getLogger().removeHandler(handler)


def test_line_is_one_object_with_its_fields(written: tuple[logging.Handler, io.StringIO]) -> None:
    """Time, level, logger and message come first; a field of the line is never one of them, and None is left out."""
    handler, stream = written
    set_log_format("json", [handler])
    extra = fields("certificate_obtained", name="a.test", seconds=1.5, ca=None, message="not this")
    logging.getLogger("mitmproxy_acme.lifecycle.ordering.failover").warning("it's\n%s", "there", extra=extra)
    (line,) = stream.getvalue().splitlines()
    read = json.loads(line)
    assert read.pop("time").endswith("Z")
    assert list(read)[:3] == ["level", "logger", "message"]
    assert read == {
        "level": "warning",
        "logger": "mitmproxy_acme.lifecycle.ordering.failover",
        "message": "it's\nthere",
        "event": "certificate_obtained",
        "name": "a.test",
        "seconds": 1.5,
    }


@pytest.mark.parametrize(
    ("created", "time"),
    [(1_800_000_000.0, "2027-01-15T08:00:00.000Z"), (1_800_000_000.1239, "2027-01-15T08:00:00.123Z")],
)
def test_time_is_in_utc_with_milliseconds(created: float, time: str) -> None:
    """Of the same length in each line, so that lines can be sorted as text."""
    record = logging.LogRecord("mitmproxy_acme.core", logging.INFO, "", 0, "said", (), None)
    record.created = created
    assert json.loads(to_json(record))["time"] == time


def test_exception_is_a_field(written: tuple[logging.Handler, io.StringIO]) -> None:
    """A traceback stays in the line of its message."""
    handler, stream = written
    set_log_format("json", [handler])
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("acme_storage.file").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: boom")


def test_lines_of_others_stay_as_they_were(written: tuple[logging.Handler, io.StringIO]) -> None:
    """mitmproxy's own lines, and those of a module that is called alike, are not ours to change."""
    handler, stream = written
    set_log_format("json", [handler])
    for name in ("mitmproxy.proxy.server", "mitmproxy_acme_other"):
        logging.getLogger(name).warning("hello")
    assert stream.getvalue() == "[plain] hello\n" * 2


def test_text_is_put_back(written: tuple[logging.Handler, io.StringIO]) -> None:
    """The option may be changed to and fro while mitmproxy runs; text is what it was without us."""
    handler, stream = written
    before = handler.formatter
    for log_format in ("json", "json", "text"):
        set_log_format(log_format, [handler])
    assert handler.formatter is before
    logging.getLogger("mitmproxy_acme").warning("hello", extra=fields("greeting"))
    assert stream.getvalue() == "[plain] hello\n"
