"""One Pebble for the session, whose validations arrive at one port; each test starts its own mitmdump there."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from acme_storage import Storage, open_storage
from tests.servers.binaries import need
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream


class Ca(Protocol):
    """What a proxy is told of a CA, and where that one validates http-01."""

    directory: str
    ca_bundle: Path
    http_port: int


class StartProxy(Protocol):
    """Start mitmdump with the addon before the upstream, trusting ``ca`` (the session's Pebble unless given).

    ``storage`` is a folder that several proxies may share (one of the test's own unless given); ``options`` are
    mitmproxy's and go over the defaults; ``start`` False leaves starting it to the test. ``http_port`` is where the CA
    validates http-01 unless given; with ``dns_port`` it is a nameserver too.
    """

    def __call__(
        self,
        *,
        ca: Ca | None = None,
        storage: Path | None = None,
        start: bool = True,
        http_port: int | None = None,
        https_port: int | None = None,
        dns_port: int | None = None,
        **options: Option,
    ) -> Mitmdump: ...


def default_options(ca: Ca, storage: Path) -> dict[str, Option]:
    """What every proxy of these tests is started with, unless a test says otherwise."""
    return {
        "acme_ca": [ca.directory],
        "acme_ca_bundle": str(ca.ca_bundle),
        "acme_email": "me@example.com",
        "acme_tos_accepted": True,
        "acme_storage": f"file:{storage}",
        "acme_domains": ["**.example.test"],
    }


def change_account(running: Mitmdump, store: Storage) -> None:
    """Restart a proxy that makes itself another account, for which its CA has validated nothing yet.

    Where a name that was validated must fail: Pebble 2.10 reuses one in a hundred even where it is to reuse none.
    """
    running.stop()
    for key in store.keys("accounts/"):
        store.delete(key)
    running.start()


@pytest.fixture(scope="session")
def dns() -> Iterator[ChallTestSrv]:
    """The DNS that every Pebble asks."""
    need("pebble-challtestsrv")
    with ChallTestSrv() as server:
        yield server


@pytest.fixture(scope="session")
def pebble(dns: ChallTestSrv) -> Iterator[Pebble]:
    """The session's CA; it refuses a fifth of all good nonces, as CAs do when they are several machines."""
    need("pebble")
    with Pebble(dns, nonce_reject=20) as server:
        yield server


@pytest.fixture(scope="module")
def lenient_ca() -> Iterator[Pebble]:
    """A CA that takes every name for validated: for tests that are not about what is proved."""
    need("pebble")
    with Pebble(always_valid=True) as server:
        yield server


@pytest.fixture(scope="session")
def root(pebble: Pebble) -> str:
    """The only certificate that the clients trust, as PEM."""
    return pebble.root()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def launch() -> type[Mitmdump]:
    """How proxies are started: without a second of imports each. Where the start is what is tested, override it."""
    return Forked


@pytest.fixture
def proxy(pebble: Pebble, upstream: Upstream, tmp_path: Path, launch: type[Mitmdump]) -> Iterator[StartProxy]:
    """Start proxies; they end with the test. One at a time, unless only one of them has to be validated."""
    with ExitStack() as stack:

        def start_proxy(
            *,
            ca: Ca | None = None,
            storage: Path | None = None,
            start: bool = True,
            http_port: int | None = None,
            https_port: int | None = None,
            dns_port: int | None = None,
            **options: Option,
        ) -> Mitmdump:
            authority: Ca = ca or pebble
            defaults = default_options(authority, storage or tmp_path / "store")
            http_port = http_port or authority.http_port
            server = launch(
                upstream.url, defaults | options, http_port=http_port, https_port=https_port, dns_port=dns_port
            )
            stack.callback(server.close)
            return server.start() if start else server

        yield start_proxy


@pytest.fixture(scope="session")
def fresh_name() -> Callable[[], str]:
    """Return a name under example.test that no test has used: Pebble remembers authorizations."""
    numbers = itertools.count(1)
    return lambda: f"n{next(numbers)}.example.test"


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    """The storage of the test's proxies, as another process sees it."""
    return open_storage(f"file:{tmp_path / 'store'}", default_folder=tmp_path)
