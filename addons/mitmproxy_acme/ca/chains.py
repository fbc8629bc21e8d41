"""Which of the chains that a CA offers to serve (RFC 8555 section 7.4.2, ``acme_preferred_chain``).

This module knows issuer names; it must not know how a chain is fetched, or whether it can be served (``delivery``).
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable

from ..core.certificate import common_name, load_chain
from ..core.errors import CertificateError, IssuanceError
from ..core.structured_logging import fields

logger = logging.getLogger(__name__)


async def choose(
    download: Callable[[str], Awaitable[tuple[str, tuple[str, ...]]]], url: str, preferred: str, ca: str
) -> str:
    """Return the chain at ``url`` as PEM: the first that leads to the preferred issuer, else the default.

    ``download`` returns a chain and the URLs of its alternates; ``ca`` names the CA in messages. Raises
    ``IssuanceError`` if the default cannot be fetched, ``CertificateError`` if it is not a chain.
    """
    default, alternates = await download(url)
    if not preferred or leads_to(default, preferred):
        return default
    for alternate in alternates:
        with contextlib.suppress(IssuanceError, CertificateError):  # the default can be served
            chain, _ = await download(alternate)
            if leads_to(chain, preferred):
                return chain
    logger.warning(
        "%s offers no chain issued by %s; the default chain is served",
        ca,
        preferred,
        extra=fields("chain_missing", ca=ca),
    )
    return default


def leads_to(chain_pem: str, issuer: str) -> bool:
    """Say whether ``issuer`` (a common name) issued any certificate of the chain.

    The issuer of the last certificate is the root, which the CA does not send. Raises ``CertificateError`` unless it is
    PEM.
    """
    return any(common_name(link.issuer) == issuer for link in load_chain(chain_pem, "the CA"))
