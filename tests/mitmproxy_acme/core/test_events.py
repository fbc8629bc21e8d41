"""Every listener is told of every event."""

import pytest

from mitmproxy_acme.core.events import CertificateRemoved, Event, Events
from mitmproxy_acme.core.names import ServerName


def test_a_listener_that_fails_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged; the other listeners are told, and the publisher goes on."""
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
