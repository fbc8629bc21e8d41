"""What happens is told to every listener."""

import pytest

from mitmproxy_acme.core.events import CertificateRemoved, Event, Events
from mitmproxy_acme.core.names import ServerName


def test_a_listener_that_fails_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged; those before and behind it hear the event, and whoever told it goes on."""
    heard: list[Event] = []

    def fail(event: Event) -> None:
        raise RuntimeError("a listener of somebody's")

    events = Events()
    events.subscribe(heard.append)
    events.subscribe(fail)
    events.subscribe(heard.append)
    event = CertificateRemoved(ServerName("a.test"), None, "node")

    events.publish(event)

    assert heard == [event, event]
    assert "a listener failed at CertificateRemoved" in caplog.text
