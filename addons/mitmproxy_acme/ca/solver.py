"""Publishing: a proof is put where its CA looks, and taken away afterwards.

This module knows who shows what: this proxy's nodes, a DNS provider, or the operator's own record; it must not know
how a challenge is computed, or talk to a CA.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import dns.exception
import dns.resolver

from acme_storage import StorageError

from ..config.config import Config
from ..core.errors import ChallengeFailed, IssuanceError
from ..core.lru_cache import LruCache
from ..core.proof import TXT_TYPES, Proof
from ..core.thread_pools import ThreadPools
from . import dns_lookup
from .dns_provider import DnsProvider

logger = logging.getLogger(__name__)

# Half of it before a record is created once more (two nodes that write one set at once may undo each other's); after
# all of it the CA is left to judge. An order takes three minutes at most.
_SHOWN_WITHIN = 100.0
_FIRST_LOOK, _SLOWEST_LOOK = 0.1, 5.0
_SAID = 1_000  # records that are not printed again


class ChallengeStore(Protocol):
    """Where proofs are kept that this proxy's nodes show; every method blocks and raises ``StorageError``."""

    def put_proof(self, proof: Proof) -> None: ...

    def delete_proof(self, proof: Proof) -> None: ...


class Solver:
    """Publishes for one configuration. Use it from one event loop."""

    def __init__(self, config: Config, shelf: ChallengeStore, threads: ThreadPools) -> None:
        """Raises ``ConfigError`` for a provider that cannot be had. Does no I/O."""
        self._config = config
        self._shelf = shelf
        self._threads = threads
        self._resolver = dns_lookup.resolver_at(config.dns_resolvers) if config.dns_resolvers else None
        self._provider = DnsProvider(config.dns_provider, self._resolver) if config.dns_provider else None
        self._said: LruCache[Proof, bool] = LruCache(_SAID)

    async def present(self, proofs: Sequence[Proof]) -> None:
        """Return when the CA can find all of them. Raises ``IssuanceError``, ``StorageError``."""
        created = []
        for proof in proofs:
            if proof.type == "dns-persist-01":
                await self._require(proof)
            elif self._provider is not None and proof.type in TXT_TYPES:
                created.append((await self._create(self._provider, proof), proof))
            else:
                await self._threads.storage(self._shelf.put_proof, proof)
        for name, proof in created:  # once all are there: a resolver keeps for a while what it saw first
            await self._show(name, proof)

    async def clean_up(self, proof: Proof) -> None:
        """Take it away as far as it goes. Raises nothing: what was ordered counts."""
        if proof.type == "dns-persist-01":
            return
        if self._provider is not None and proof.type in TXT_TYPES:
            try:
                name = await self._threads.issuer(self._canonical_name, proof)
                await self._threads.issuer(self._provider.delete, name, proof.value)
            except IssuanceError as error:
                logger.warning("a record is left behind: %s", error)
            return
        with contextlib.suppress(StorageError):  # it ends by itself
            await self._threads.storage(self._shelf.delete_proof, proof)

    async def _require(self, proof: Proof) -> None:
        """Look for a record that the operator keeps: without it the CA would only count a failure."""
        if not self._said.get(proof):
            self._said.put(proof, True)
            logger.info('dns-persist-01 wants this record: %s. TXT "%s"', proof.location, proof.value)
        found = await self._threads.issuer(self._texts, proof.location)
        if found is not None and not any(permits(text, proof, time.time()) for text in found):
            raise ChallengeFailed(f'no record permits the order; publish {proof.location}. TXT "{proof.value}"')

    async def _create(self, provider: DnsProvider, proof: Proof) -> str:
        """Create the record where the CA's question ends, and return that name."""
        name = await self._threads.issuer(self._canonical_name, proof)
        await self._threads.issuer(provider.create, name, proof.value)
        return name

    async def _show(self, name: str, proof: Proof) -> None:
        """Return when the record is seen, or after some time without."""
        servers = await self._threads.issuer(lambda: dns_lookup.nameservers(self._resolving(), name))
        if await self._is_shown(servers, name, proof.value):
            return
        assert self._provider is not None  # noqa: S101  # narrows: it has created the record
        await self._threads.issuer(self._provider.create, name, proof.value)
        if not await self._is_shown(servers, name, proof.value):
            logger.warning("%s: nameservers do not show the new TXT record yet; the CA is asked all the same", name)

    async def _is_shown(self, servers: Sequence[str], name: str, value: str) -> bool:
        loop, pause = asyncio.get_running_loop(), _FIRST_LOOK
        end = loop.time() + _SHOWN_WITHIN / 2
        while not await self._threads.issuer(lambda: dns_lookup.is_shown(self._resolving(), servers, name, value)):
            if loop.time() > end:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SLOWEST_LOOK)
        return True

    def _canonical_name(self, proof: Proof) -> str:
        return dns_lookup.canonical_name(self._resolving(), proof.location)

    def _texts(self, name: str) -> list[str] | None:
        return dns_lookup.texts(self._resolving(), name)

    def _resolving(self) -> dns.resolver.Resolver:
        try:
            return self._resolver or dns_lookup.resolver_at(())
        except dns.exception.DNSException as error:
            raise IssuanceError(f"this machine has no resolver; name one in acme_dns_resolvers: {error}") from None


def permits(text: str, proof: Proof, now: float) -> bool:
    """Say whether a record at the place of ``proof`` lets its account order, as the CA will judge."""
    issuer, *parameters = (part.strip() for part in text.split(";"))
    wanted_issuer, *wanted = (part.strip() for part in proof.value.split(";"))
    given = {name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in parameters)}
    needs = dict(part.split("=", 1) for part in wanted)
    until = given.get("persistuntil", "")
    if until and not (until.isdecimal() and now < int(until)):
        return False
    if "policy" in needs and given.get("policy", "").lower() != needs["policy"]:
        return False
    return issuer.lower() == wanted_issuer.lower() and given.get("accounturi") == needs["accounturi"]
