"""Hooks: what happens to certificates, for the other addons of this mitmproxy.

An addon receives them as it does mitmproxy's own, as methods (or functions of a script), sync or async:

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
    """This node ordered a certificate and got it; ``event.certificate`` carries the private key."""

    event: CertificateObtained


@dataclass
class AcmeCertificateFailedHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """This node's order failed; ``event`` says why, and when it is tried again."""

    event: CertificateFailed


@dataclass
class AcmeCertificateExpiringHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """A renewal failed again, and less than a third of the certificate's life is left."""

    event: CertificateExpiring


@dataclass
class AcmeCertificateRemovedHook(hooks.Hook):  # type: ignore[no-untyped-call]  # mitmproxy has no types there
    """This node deleted a certificate for all nodes, and had the CA revoke it where ``event.revocation`` is set."""

    event: CertificateRemoved


def tell_addons(event: Event) -> None:
    """Begin to tell every addon that receives this event; a listener of ``Events``.

    A slow one delays neither the caller nor what happens next: each event is told in a task of its own.
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
    # Not trigger_event: to that, all scripts are one addon, and the first that fails keeps the event from the rest.
    for receive in list(_receivers(hook)):
        try:
            result = receive(*hook.args())
            if inspect.isawaitable(result):
                await result
        except exceptions.AddonHalt:  # as in mitmproxy's own hooks: those behind it are not told
            return
        except Exception:  # whatever it is: it is that addon's, and the others have nothing to do with it
            logger.exception("an addon failed at %s", hook.name)


def _receivers(hook: hooks.Hook) -> Iterator[Callable[..., Awaitable[None] | None]]:
    for addon in addonmanager.traverse(ctx.master.addons.chain):  # type: ignore[no-untyped-call]
        receive = getattr(addon, hook.name, None)
        if callable(receive):
            yield receive
