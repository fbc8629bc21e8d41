"""What a person who sits before mitmweb types and sees."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.client import eventually, handshake
from tests.end_to_end.conftest import default_options
from tests.servers.forked import ForkedWeb
from tests.servers.pebble import Pebble
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]


@pytest.fixture
def web(pebble: Pebble, upstream: Upstream, tmp_path: Path) -> Iterator[ForkedWeb]:
    with ForkedWeb(upstream.url, default_options(pebble, tmp_path / "store"), http_port=pebble.http_port) as server:
        yield server


def test_certificate_is_issued_listed_renewed_and_revoked_by_commands(
    web: ForkedWeb, root: str, fresh_name: FreshName
) -> None:
    """Each command works from the command bar, and the event log shows the outcome of longer work."""
    name = fresh_name()
    assert web.command("acme.issue", name) is None
    eventually(lambda: _told(web, f"acme.issue {name}: obtained, valid until"))
    eventually(lambda: name in [row[0] for row in web.command("acme.list")])
    assert dict(web.command("acme.show", name))["state"] == "valid"
    first = handshake(web.https_port, name, root).leaf

    web.command("acme.renew", name)
    eventually(lambda: _told(web, f"acme.renew {name}: renewed, valid until"))
    assert handshake(web.https_port, name, root).leaf != first

    web.command("acme.revoke", name, "superseded")
    eventually(lambda: _told(web, f"acme.revoke {name}: revoked (superseded) and deleted"))
    eventually(lambda: web.command("acme.show", name) == {"error": f"no certificate is stored for {name}"})

    assert _told(web, f"{name}: ordering a certificate at ")
    assert [row[1:3] for row in web.command("acme.events")[1:]] == [
        [kind, name] for kind in ("removed", "renewed", "obtained")
    ]

    web.command("acme.check")
    eventually(lambda: _told(web, "acme.check: pass 4, warn 1, fail 0"))


def _told(web: ForkedWeb, text: str) -> bool:
    return any(text in event for event in web.events())
