"""Which records that cannot be used are logged: each once, of a bounded number."""

import pytest

from mitmproxy_acme.store.record_warnings import RecordWarnings


def test_record_is_warned_of_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever other records are warned of meanwhile."""
    warnings = RecordWarnings()
    for _ in range(3):
        for key in ("a", "b"):
            warnings.warn_once(key, b"x", "%s is broken", key)
    assert caplog.messages == ["a is broken", "b is broken"]
    warnings.warn_once("a", b"y", "%s is broken", "a")
    assert len(caplog.messages) == 3


def test_memory_of_warnings_is_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forger may write any number of records: then some are warned of again."""
    monkeypatch.setattr("mitmproxy_acme.store.record_warnings._MOST", 3)
    warnings = RecordWarnings()
    for number in range(100):
        warnings.warn_once(str(number), b"x", "%s", number)
        assert len(warnings._logged) <= 3
    assert len(caplog.messages) == 100
