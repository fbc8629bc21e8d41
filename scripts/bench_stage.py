"""The contestants of scripts/bench: each with its own Pebble, started alike, before one web server.

Knows how each one is set up; must not know what is measured.
"""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from scripts.bench_client import Client
from tests.servers.base import Server
from tests.servers.caddy import Caddy
from tests.servers.mitmdump import Mitmdump, Option, Run
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.stock import StockMitmdump
from tests.servers.upstream import Upstream

ZONE = "bench.example.test"


def new_names(count: int) -> list[str]:
    """New names."""
    return [f"{secrets.token_hex(6)}.{ZONE}" for _ in range(count)]


@dataclass(frozen=True)
class Contestant:
    """One proxy that obtains certificates, its CA, and a client that trusts that CA only."""

    label: str
    server: Server
    port: int
    pebble: Pebble
    client: Client


class Stage:
    """Starts servers; all of them end with the ``with`` block, however it ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.upstream = self._stack.enter_context(Upstream())
        self.dns = self._stack.enter_context(ChallTestSrv())

    def pebble(self) -> Pebble:
        """A CA as every contestant gets it: no artificial sleeps, no refused nonces, ECDSA, one profile.

        And no Retry-After that asks for patience: Caddy waits for it (880 ms a name at 1 s, seen), we look sooner.
        """
        return self._stack.enter_context(Pebble(self.dns, retry_after=(0, 0)))

    def ours(self, options: dict[str, Option] | None = None, arguments: Sequence[str] = ()) -> Contestant:
        """mitmdump with the addon and its own Pebble, running."""
        proxy = self.prepare_ours(options or {}, arguments)
        self.start(proxy)
        return proxy

    def run(self, options: dict[str, Option] | None = None, *, workers: int = 1) -> Contestant:
        """The same, started by `mitmproxy-acme run` with so many processes."""
        proxy = self.prepare_ours(options or {}, launch=Run)
        assert isinstance(proxy.server, Run)  # narrows
        proxy.server.workers = workers
        self.start(proxy)
        return proxy

    def prepare_ours(
        self,
        options: dict[str, Option],
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        launch: type[Mitmdump] = Mitmdump,
    ) -> Contestant:
        """The same, not yet started: `start` it. `options` go over those that every run has."""
        pebble = self.pebble()
        usual: dict[str, Option] = {
            "acme_domains": f"**.{ZONE}",
            "acme_ca": pebble.directory,
            "acme_ca_bundle": str(pebble.ca_bundle),
            "acme_email": "me@example.com",
            "acme_tos_accepted": True,
        }
        server = launch(self.upstream.url, {**usual, **options}, http_port=pebble.http_port, arguments=arguments)
        server.environment |= environment or {}
        return Contestant("mitmdump with the addon", server, server.https_port, pebble, Client(pebble.root()))

    def caddy(self) -> Contestant:
        """Caddy, on demand, and its own Pebble, running."""
        proxy = self.prepare_caddy()
        self.start(proxy)
        return proxy

    def prepare_caddy(self, names: Sequence[str] = ()) -> Contestant:
        """The same, not yet started, with managed `names` if there are any."""
        pebble = self.pebble()
        server = Caddy(self.upstream.url, pebble, names)
        return Contestant("Caddy", server, server.https_port, pebble, Client(pebble.root()))

    def stock(self, name: str, arguments: Sequence[str] = ()) -> StockMitmdump:
        """Stock mitmdump with a certificate for `name`, running."""
        return self._stack.enter_context(StockMitmdump(self.upstream.url, [name], arguments))

    def start(self, proxy: Contestant) -> None:
        """Start what was prepared; returns when it answers."""
        self._stack.enter_context(proxy.server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
