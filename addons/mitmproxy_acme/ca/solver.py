"""Solver: puts a proof where the CA looks for it, and removes it afterwards.

This module knows who shows a proof: this proxy's nodes, a DNS provider, or the operator's own record; it must not know
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

# Seconds. Half of it before a record is created once more (two nodes that write one record set at the same time may
# undo each other's change); after all of it the CA decides. An order takes three minutes at most.
_VISIBLE_WITHIN = 100.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LOGGED_RECORDS = 1_000  # their number that is remembered, so that each is logged once


class ChallengeStore(Protocol):
    """Where proofs are stored that this proxy's nodes show; every method blocks and raises ``StorageError``."""

    def put_proof(self, proof: Proof) -> None: ...

    def delete_proof(self, proof: Proof) -> None: ...


class Solver:
    """Presents proofs as one configuration says. Use it from one event loop."""

    def __init__(self, config: Config, store: ChallengeStore, threads: ThreadPools) -> None:
        """Raises ``ConfigError`` if the DNS provider cannot be used. Does no I/O."""
        self._store = store
        self._threads = threads
        self._resolver = dns_lookup.resolver_at(config.dns_resolvers) if config.dns_resolvers else None
        self._provider = DnsProvider(config.dns_provider, self._resolver) if config.dns_provider else None
        self._logged: LruCache[Proof, bool] = LruCache(_LOGGED_RECORDS)

    async def present(self, proofs: Sequence[Proof]) -> None:
        """Return when the CA can find all proofs. Raises ``IssuanceError``, ``StorageError``."""
        created = []
        for proof in proofs:
            if proof.type == "dns-persist-01":
                await self._require(proof)
            elif self._provider is not None and proof.type in TXT_TYPES:
                created.append((await self._create(self._provider, proof), proof))
            else:
                await self._threads.storage(self._store.put_proof, proof)
        for name, proof in created:  # after all are created: a resolver caches what it saw first
            await self._wait_visible(name, proof)

    async def clean_up(self, proof: Proof) -> None:
        """Remove the proof if possible. Raises nothing: the order's result matters more."""
        if proof.type == "dns-persist-01":
            return
        if self._provider is not None and proof.type in TXT_TYPES:
            try:
                name = await self._threads.issuer(self._canonical_name, proof)
                await self._threads.issuer(self._provider.delete, name, proof.value)
            except IssuanceError as error:
                logger.warning("a TXT record was not deleted: %s", error)
            return
        with contextlib.suppress(StorageError):  # it expires by itself
            await self._threads.storage(self._store.delete_proof, proof)

    async def _require(self, proof: Proof) -> None:
        """Require the record that the operator publishes: without it the CA would only count a failure."""
        if not self._logged.get(proof):
            self._logged.put(proof, True)
            logger.info('dns-persist-01 needs this record: %s. TXT "%s"', proof.location, proof.value)
        try:
            found = await self._threads.issuer(self._txt_values, proof.location)
        except dns_lookup.NoAnswer:
            return  # the CA decides
        if not any(permits(text, proof, time.time()) for text in found):
            raise ChallengeFailed(f'no DNS record allows the order; publish {proof.location}. TXT "{proof.value}"')

    async def _create(self, provider: DnsProvider, proof: Proof) -> str:
        """Create the record at the end of the name's aliases, and return that name."""
        name = await self._threads.issuer(self._canonical_name, proof)
        await self._threads.issuer(provider.create, name, proof.value)
        return name

    async def _wait_visible(self, name: str, proof: Proof) -> None:
        """Return when nameservers show the record, or after a limited time."""
        servers = await self._threads.issuer(lambda: dns_lookup.nameservers(self._connected_resolver(), name))
        if await self._is_visible(servers, name, proof.value):
            return
        assert self._provider is not None  # noqa: S101  # narrows: it has created the record
        await self._threads.issuer(self._provider.create, name, proof.value)
        if not await self._is_visible(servers, name, proof.value):
            logger.warning("%s: nameservers do not show the new TXT record yet; the CA is asked anyway", name)

    async def _is_visible(self, servers: Sequence[str], name: str, value: str) -> bool:
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        end = loop.time() + _VISIBLE_WITHIN / 2
        while not await self._threads.issuer(
            lambda: dns_lookup.is_visible(self._connected_resolver(), servers, name, value)
        ):
            if loop.time() > end:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _canonical_name(self, proof: Proof) -> str:
        return dns_lookup.canonical_name(self._connected_resolver(), proof.location)

    def _txt_values(self, name: str) -> list[str]:
        return dns_lookup.txt_values(self._connected_resolver(), name)

    def _connected_resolver(self) -> dns.resolver.Resolver:
        try:
            return self._resolver or dns_lookup.resolver_at(())
        except dns.exception.DNSException as error:
            raise IssuanceError(f"this machine has no DNS resolver; set acme_dns_resolvers: {error}") from None


def permits(text: str, proof: Proof, now: float) -> bool:
    """Say whether a record at the location of ``proof`` allows its account to order, as the CA will judge."""
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
