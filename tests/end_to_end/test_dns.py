"""dns-01 with this proxy as the nameserver: a real CA asks a real resolver, which asks us."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import pytest

from tests.end_to_end.client import eventually, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import Pebble
from tests.servers.unbound import Unbound

ZONE = "acme.example.test"


class StartCa(Protocol):
    """Start a CA whose resolver has ``records``, and asks the proxies on ``ports`` for ``zones`` (``ZONE`` alone)."""

    def __call__(self, *ports: int, records: Sequence[str] = (), zones: Sequence[str] = (ZONE,)) -> Pebble: ...


@pytest.fixture
def start_ca() -> Iterator[StartCa]:
    need("pebble", "unbound")
    with ExitStack() as stack:

        def start(*ports: int, records: Sequence[str] = (), zones: Sequence[str] = (ZONE,)) -> Pebble:
            resolver = stack.enter_context(Unbound(dict.fromkeys(zones, ports), records))
            return stack.enter_context(Pebble(resolver))

        yield start


def test_wildcard_and_apex_in_one_certificate(
    proxy: StartProxy, start_ca: StartCa, fresh_name: Callable[[], str]
) -> None:
    """Both values stand under one name, an alias into our zone; every name one label below is served with it."""
    apex, port = fresh_name(), free_port()
    ca = start_ca(port, records=[f"_acme-challenge.{apex}. CNAME {apex}.{ZONE}."])
    running = proxy(
        ca=ca,
        dns_port=port,
        acme_challenges=["dns-01"],
        acme_dns_zone=ZONE,
        acme_certificates=[f"{apex},*.{apex}"],
        acme_domains=[],
    )
    eventually(lambda: is_trusted(running.https_port, f"www.{apex}", ca.root()))
    served = handshakes(running.https_port, [apex, f"www.{apex}", f"UPPER.{apex}"], ca.root())
    assert {tuple(visit.names) for visit in served} == {(apex, f"*.{apex}")}
    assert not is_trusted(running.https_port, f"a.b.{apex}", ca.root())
    assert ca.seen().orders == 1
