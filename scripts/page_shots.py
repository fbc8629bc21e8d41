"""Take screenshots of the status page: light, dark and narrow, with none, few and very many certificates.

Knows how the tests start a proxy and a browser; must not judge what is seen. Run it in the environment that
scripts/check makes: .venv/bin/python -m scripts.page_shots FOLDER, in the checkout
"""

import contextlib
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.event_log import EventKind, EventLog, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from mitmproxy_acme.store.rate_limiter import RateLimiter
from tests.end_to_end import client, shelf
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port
from tests.servers.browser import Tab, chromium
from tests.servers.mitmdump import Mitmdump, Option

type Scheme = Literal["light", "dark"]

_LOOKS: tuple[tuple[str, int, Scheme], ...] = (
    ("light", 1280, "light"),
    ("dark", 1280, "dark"),
    ("narrow", 360, "light"),
    ("narrow-dark", 320, "dark"),
)
_CA = "https://localhost:9/directory"  # where no CA listens
_LIMITS = Limits(orders=Limit(30, 3 * 3_600.0), certificates_per_domain=Limit(50, 7 * DAY))


def _happened(storage: Storage) -> None:
    """Events of two nodes, of the last days."""
    node, other = ("3f9a1c20", "edge-1"), ("b07d55e1", "edge-2")
    reason = "the CA could not validate it: DNS problem: NXDOMAIN looking up A for old.example.com"
    shown: tuple[tuple[float, tuple[str, str], EventKind, str, dict[str, Any]], ...] = (
        (3, node, EventKind.RENEWED, "shop.example.com", {"ca": "letsencrypt", "seconds": 2.31}),
        (130, other, EventKind.OBTAINED, "api.example.com", {"ca": "letsencrypt", "seconds": 4.02}),
        (140, other, EventKind.FAILED, "old.example.com", {"ca": "letsencrypt", "seconds": 11.7, "reason": reason}),
        (141, other, EventKind.EXPIRING, "old.example.com", {"reason": reason, "left_out": 12}),
        (8_000, node, EventKind.REMOVED, "moved.example.com", {"reason": "expired long ago", "more": 41}),
        (90_000, node, EventKind.REMOVED, "leak.example.com", {"reason": "revoked (keyCompromise)"}),
    )
    log = EventLog(storage, UNSEALED)
    for number, (ago, (id, machine), kind, host, more) in enumerate(shown):
        log.write(LoggedEvent(EventId(int((time.time() - ago) * 1000), number, id), kind, host, machine, **more))


def _few(storage: Storage) -> None:
    _happened(storage)
    shelf.put(storage, shelf.aged("shop.example.com", others=["www.shop.example.com", "m.shop.example.com"]))
    shelf.put(storage, shelf.aged("api.example.com", "due", issuer="R13"))
    shelf.put(storage, shelf.aged("old.example.com", "expiring"))
    budgets = RateLimiter(storage, _CA, _LIMITS, time.time)
    for number in range(38):
        budgets.count_certificate((ServerName(f"n{number}.example.com"),))
    for _ in range(26):
        budgets.take_order((ServerName("shop.example.com"),))


def _many(storage: Storage) -> None:
    shelf.put_many(storage, 10_000, "example.com")
    storage.put("certificates/broken.example.com", b"torn")
    reason = "the CA could not validate it: Fetching http://{0}/.well-known/acme-challenge/x: Connection refused"
    for name in ("n00000.example.com", "a-rather-long-name-of-a-department.intranet.example.com"):
        shelf.fail(storage, name, reason.format(name), failures=3)


@contextmanager
def _proxy(folder: Path, **more: Option) -> Iterator[str]:
    port = free_port()
    options: dict[str, Option] = {
        "acme_ca": [f"{_CA};orders=30/3h;certificates_per_domain=50/7d"],
        "acme_email": "me@example.com",
        "acme_tos_accepted": True,
        "acme_storage": f"file:{folder}",
        "acme_domains": ["**.example.com"],
        "acme_admin_listen": f"127.0.0.1:{port}",
    }
    with Mitmdump("http://127.0.0.1:9", options | more) as proxy:
        for name in ("shop.example.com", "shop.example.com", "elsewhere.test", "api.example.com", "shop.example.com"):
            with contextlib.suppress(ssl.SSLError, OSError):  # no client trusts these certificates
                client.handshake(proxy.https_port, name, "", check_hostname=False)
        yield f"http://127.0.0.1:{port}/"


def _shoot(browser: Browser, url: str, out: Path, kind: str) -> None:
    for name, width, scheme in _LOOKS:
        tab = Tab(browser, width=width, height=900, scheme=scheme)
        tab.page.goto(url)
        tab.page.locator("#rows tr, #empty:not([hidden])").first.wait_for(timeout=60_000)
        tab.page.get_by_text("still being read").wait_for(state="hidden", timeout=60_000)
        tab.page.screenshot(path=out / f"{kind}-{name}.png", full_page=kind != "many")
        if kind == "few":
            _dialogs(tab.page, out, name)
        print(f"{kind}-{name}: {tab.complaints or 'nothing to complain'}")
        tab.close()


def _dialogs(page: Page, out: Path, name: str) -> None:
    page.locator("button.name").first.click()
    page.screenshot(path=out / f"details-{name}.png")
    page.get_by_role("button", name="Revoke…").click()
    page.screenshot(path=out / f"revoke-{name}.png")


def _shoot_trouble(browser: Browser, out: Path, folder: Path) -> None:
    """The page that asks for a token, and the one that lost its proxy."""
    tab = Tab(browser)
    with _proxy(folder, acme_admin_token="a-token-for-screenshots-0123456789") as url:
        tab.page.goto(url)
        tab.page.get_by_label("Token", exact=True).fill("a wrong one")
        tab.page.keyboard.press("Enter")
        tab.page.get_by_text("This is not the token.").wait_for()
        tab.page.screenshot(path=out / "token.png")
    with _proxy(folder) as url:
        tab.page.goto(url)
        tab.page.locator("#rows tr").first.wait_for()
        tab.page.get_by_label("Host name").fill("www.example.com")
        tab.page.get_by_role("button", name="Obtain").click()
        tab.page.locator("#failing li, #said[data-tone=bad]").first.wait_for()
    tab.page.get_by_text("Connection lost").wait_for()
    tab.page.screenshot(path=out / "lost.png")
    tab.close()


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium(Path(temporary)) as browser:
        for kind, fill in (("none", lambda _: None), ("few", _few), ("many", _many)):
            folder = Path(temporary) / kind
            fill(open_storage(f"file:{folder}", default_folder=folder))
            with _proxy(folder) as url:
                _shoot(browser, url, out, kind)
        _shoot_trouble(browser, out, Path(temporary) / "few")


if __name__ == "__main__":
    main()
