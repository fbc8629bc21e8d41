"""Authorization: prove control of every name of an order (RFC 8555 section 7.5).

This module knows challenges, and when to ask the CA to validate; it must not know how an order continues. Each request
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
from .polling import Polled, poll_until
from .reply_checks import require_undecided
from .solver import Solver

# Seconds before a CA is asked to validate a name once more, if it has failed and waits to be asked again (RFC 8555
# section 8.2), as step-ca and Caddy do. The record may have been late, but a visitor waits for us too.
_RETRY_AFTER = (1.0, 3.0)

type _Pending = tuple[str, messages.ChallengeBody, Proof]


class Authorizer:
    """Has one CA validate the names of orders. Use it from one event loop; raises ``IssuanceError``."""

    def __init__(self, ca: str, types: Sequence[str], threads: ThreadPools, solver: Solver) -> None:
        """``ca`` names the CA in messages; ``types`` are the challenge types in order of preference."""
        self._ca = ca
        self._types = types
        self._threads = threads
        self._solver = solver

    async def authorize(
        self, client: Client, order: messages.Order, names: Sequence[ServerName], end: float, least: float
    ) -> float:
        """Prove control of every name, and clean up the proofs in any case.

        Return the deadline of the order, in the running loop's time: at least ``end``, and at least ``least`` seconds
        after the CA was asked to validate.

        All proofs are presented before the CA looks for any: two names may share a DNS name, and a resolver would go on
        returning the single value that it found first.
        """
        async with contextlib.AsyncExitStack() as presented:
            urls = order.authorizations
            pending = [found for url in urls if (found := await self._prove(client, url, names)) is not None]
            for _, _, proof in pending:
                presented.push_async_callback(self._solver.clean_up, proof)
            await self._solver.present([proof for _, _, proof in pending])
            for _, body, _ in pending:
                await self._threads.issuer(client.answer, body)
            end = max(end, asyncio.get_running_loop().time() + least)
            for url, body, _ in pending:
                await self._validated(client, url, body, names, end)
            return end

    async def _prove(self, client: Client, url: str, names: Sequence[ServerName]) -> _Pending | None:
        """Choose a challenge of an authorization and compute its proof; None if the name is validated already."""
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
        """Wait until the CA has validated a name; if it has failed and would wait for us, ask it to try again."""

        async def fetch() -> Polled[messages.Authorization]:
            return await self._threads.issuer(client.authorization, url, names)

        def is_over(authorization: messages.Authorization) -> bool:
            return authorization.status != messages.STATUS_PENDING or _awaits_us(authorization, body)

        authorization = await poll_until(fetch, is_over, end)
        for pause in _RETRY_AFTER:
            if not _awaits_us(authorization, body) or asyncio.get_running_loop().time() + pause >= end:
                break
            await asyncio.sleep(pause)
            await self._threads.issuer(client.answer, body)
            authorization = await poll_until(fetch, is_over, end)
        if authorization.status != messages.STATUS_VALID:
            raise problems.from_authorization(self._ca, authorization)


def _awaits_us(authorization: messages.Authorization, body: messages.ChallengeBody) -> bool:
    """Say whether the CA has failed to validate, and waits for us to ask again.

    While it keeps trying by itself, the challenge is "processing", with the error of the last try (section 8.2).
    """
    return authorization.status == messages.STATUS_PENDING and any(
        challenge.uri == body.uri and challenge.status == messages.STATUS_PENDING and challenge.error is not None
        for challenge in authorization.challenges
    )
