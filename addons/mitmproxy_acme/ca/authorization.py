"""Authorizing: to prove control of every name of an order (RFC 8555 section 7.5).

This module knows challenges, and when to ask the CA to validate; it must not know how an order goes on. Each request
runs in a thread, each wait is ``asyncio.sleep``.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from acme import messages

from ..core.names import ServerName
from ..core.proof import Proof
from ..core.thread_pools import ThreadPools
from . import challenges, problems
from .client import Client
from .polling import Polled, watch
from .reply_checks import require_undecided
from .solver import Solver

# Seconds before a CA is asked to validate a name once more. It has failed, and the CA waits to be asked again (RFC 8555
# section 8.2), as step-ca and Caddy do: a record may have been late, but a visitor waits for us, too.
_ONCE_MORE_AFTER = (1.0, 3.0)

type _Pending = tuple[str, messages.ChallengeBody, Proof]


class Authorizer:
    """Has one CA validate the names of orders. Use it from one event loop; raises ``IssuanceError``."""

    def __init__(self, ca: str, types: Sequence[str], threads: ThreadPools, publisher: Solver) -> None:
        """``ca`` is what messages call the CA, ``types`` the challenges in order of preference."""
        self._ca = ca
        self._types = types
        self._threads = threads
        self._publisher = publisher

    async def authorize(
        self, client: Client, order: messages.Order, names: Sequence[ServerName], end: float, least: float
    ) -> float:
        """Prove control of every name; what was published is withdrawn, whatever happens.

        Return until when the order may take, which is not before ``end``, and leaves the CA ``least`` seconds from
        when it was asked to validate: times of the running loop.

        All is published before the CA looks for any of it: two names may share a place in DNS, where a resolver would
        go on seeing the one value that it found first.
        """
        async with contextlib.AsyncExitStack() as published:
            urls = order.authorizations
            pending = [found for url in urls if (found := await self._prove(client, url, names)) is not None]
            for _, _, proof in pending:
                published.push_async_callback(self._publisher.clean_up, proof)
            await self._publisher.present([proof for _, _, proof in pending])
            for _, body, _ in pending:
                await self._threads.issuer(client.answer, body)
            end = max(end, asyncio.get_running_loop().time() + least)
            for url, body, _ in pending:
                await self._validated(client, url, body, names, end)
            return end

    async def _prove(self, client: Client, url: str, names: Sequence[ServerName]) -> _Pending | None:
        """Choose a challenge of an authorization and compute its proof; None where the name is validated already."""
        authorization, _ = await self._threads.issuer(client.authorization, url, names)
        require_undecided(self._ca, authorization, names)
        if authorization.status == messages.STATUS_VALID:
            return None
        if authorization.status != messages.STATUS_PENDING:
            raise problems.from_authorization(self._ca, authorization)
        challenge, body = challenges.choose(self._types, authorization)
        return url, body, challenge.prove(authorization, body, client.prover)

    async def _validated(
        self, client: Client, url: str, body: messages.ChallengeBody, names: Sequence[ServerName], end: float
    ) -> None:
        """Wait until the CA has validated a name; ask it to try again, where it has failed and would wait for that."""

        async def look() -> Polled[messages.Authorization]:
            return await self._threads.issuer(client.authorization, url, names)

        def is_over(seen: messages.Authorization) -> bool:
            return seen.status != messages.STATUS_PENDING or _awaits_us(seen, body)

        authorization = await watch(look, is_over, end)
        for pause in _ONCE_MORE_AFTER:
            if not _awaits_us(authorization, body) or asyncio.get_running_loop().time() + pause >= end:
                break
            await asyncio.sleep(pause)
            await self._threads.issuer(client.answer, body)
            authorization = await watch(look, is_over, end)
        if authorization.status != messages.STATUS_VALID:
            raise problems.from_authorization(self._ca, authorization)


def _awaits_us(authorization: messages.Authorization, body: messages.ChallengeBody) -> bool:
    """Say whether the CA has failed to validate, and leaves it to us to ask again.

    While it goes on trying by itself, the challenge is "processing", with the error of the last time (section 8.2).
    """
    return authorization.status == messages.STATUS_PENDING and any(
        challenge.uri == body.uri and challenge.status == messages.STATUS_PENDING and challenge.error is not None
        for challenge in authorization.challenges
    )
