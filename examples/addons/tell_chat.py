"""Send a message to a chat when a certificate fails, expires soon, or was removed.

    mitmdump -s addons/acme_addon.py -s examples/addons/tell_chat.py … --set tell_chat_url=https://hooks.slack.com/services/…

The URL is that of an incoming webhook of Slack, Mattermost, Rocket.Chat or another chat that accepts
``{"text": "…"}``. Anyone who knows the URL can write to the chat; the log does not show it.
"""

import asyncio
import logging
import time

import requests
from mitmproxy import ctx
from mitmproxy.addonmanager import Loader

from mitmproxy_acme import CertificateExpiring, CertificateFailed, CertificateRemoved

logger = logging.getLogger(__name__)

_SECONDS = 10


class TellChat:
    def load(self, loader: Loader) -> None:
        loader.add_option("tell_chat_url", str, "", "URL of the chat's incoming webhook.")

    async def acme_certificate_failed(self, event: CertificateFailed) -> None:
        wait = max(0.0, event.retry_at - time.time())
        retry = f"retry in {wait / 60:.0f} min"
        await tell(f"{event.subject}: no certificate: {event.reason}; {retry} ({event.node})")

    async def acme_certificate_expiring(self, event: CertificateExpiring) -> None:
        days = (event.certificate.not_after - time.time()) / 86_400
        await tell(f"{event.subject}: expires in {days:.1f} days, renewal failed: {event.reason} ({event.node})")

    async def acme_certificate_removed(self, event: CertificateRemoved) -> None:
        done = f"revoked ({event.revocation})" if event.revocation else "deleted"
        await tell(f"{event.id}: certificate {done} ({event.node})")


async def tell(text: str) -> None:
    if not ctx.options.tell_chat_url:
        logger.info("%s", text)
        return
    try:
        await asyncio.to_thread(_post, ctx.options.tell_chat_url, {"text": text})
    except requests.RequestException as error:
        logger.warning("cannot send a message to the chat (%s): %s", type(error).__name__, text)


def _post(url: str, document: dict[str, str]) -> None:
    with requests.Session() as session:
        session.trust_env = False  # the proxy in the environment may be this mitmproxy
        session.post(url, json=document, timeout=_SECONDS).raise_for_status()


addons = [TellChat()]
