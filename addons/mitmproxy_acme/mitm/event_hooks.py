"""Hooks by which the other addons of this mitmproxy learn what happens to certificates.

An addon receives them like mitmproxy's own hooks, as methods (or functions of a script), sync or async:

    def acme_certificate_obtained(self, event: CertificateObtained) -> None: ...
    def acme_certificate_failed(self, event: CertificateFailed) -> None: ...
    def acme_certificate_expiring(self, event: CertificateExpiring) -> None: ...
    def acme_certificate_removed(self, event: CertificateRemoved) -> None: ...

This module knows mitmproxy's addons and our events; it must not know what the addons do with them.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from mitmproxy import addonmanager, ctx, exceptions, hooks
from mitmproxy.utils import asyncio_utils

from ..core.events import CertificateExpiring, CertificateFailed, CertificateObtained, CertificateRemoved, Event

logger = logging.getLogger(__name__)


@dataclass
class AcmeCertificateObtainedHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """This node obtained a certificate; ``event.certificate`` has the private key."""

    event: CertificateObtained


@dataclass
class AcmeCertificateFailedHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """An order of this node failed; ``event`` says why, and when it is tried again."""

    event: CertificateFailed


@dataclass
class AcmeCertificateExpiringHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """A renewal failed again, and less than a third of the certificate's lifetime is left."""

    event: CertificateExpiring


@dataclass
class AcmeCertificateRemovedHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """This node deleted a certificate for all nodes; if ``event.revocation`` is set, the CA revoked it."""

    event: CertificateRemoved


def tell_addons(event: Event) -> None:
    """Call every addon that receives this event, in the background; a listener of ``Events``.

    Each event has its own task: a slow addon delays neither the caller nor the next event.
    """
    hook = _hook(event)
    if hook is not None and any(_receivers(hook)):
        asyncio_utils.create_task(_tell(hook), name=f"acme hook {hook.name}", keep_ref=True)


def _hook(event: Event) -> hooks.Hook | None:
    match event:
        case CertificateObtained():
            return AcmeCertificateObtainedHook(event)
        case CertificateFailed():
            return AcmeCertificateFailedHook(event)
        case CertificateExpiring():
            return AcmeCertificateExpiringHook(event)
        case CertificateRemoved():
            return AcmeCertificateRemovedHook(event)
        case _:
            return None


async def _tell(hook: hooks.Hook) -> None:
    # Not trigger_event: it treats all scripts as one addon, and the first that fails keeps the event from the rest.
    for receive in list(_receivers(hook)):
        try:
            result = receive(*hook.args())
            if inspect.isawaitable(result):
                await result
        except exceptions.AddonHalt:  # as in mitmproxy's own hooks: the addons behind it are not called
            return
        except Exception:  # any failure of one addon: the others are still called
            logger.exception("an addon failed at %s", hook.name)


def _receivers(hook: hooks.Hook) -> Iterator[Callable[..., Awaitable[None] | None]]:
    for addon in addonmanager.traverse(ctx.master.addons.chain):  # type: ignore[no-untyped-call]
        receive = getattr(addon, hook.name, None)
        if callable(receive):
            yield receive
