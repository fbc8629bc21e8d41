"""The status page in a real browser, before a real proxy and a real CA: what a person sees, and what they can do.

Whatever the browser complains of (an error, a violation of the Content-Security-Policy, a dialog that markup opened)
fails the test, but for the requests that are refused on purpose.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from acme_storage import Storage, open_storage
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.revocation import REASONS
from mitmproxy_acme.store.event_log import EventKind, EventLog, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from mitmproxy_acme.store.store import Store
from tests.end_to_end import shelf
from tests.end_to_end.admin import Api
from tests.end_to_end.client import handshake, untrusted
from tests.end_to_end.conftest import StartProxy, default_options
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port, started
from tests.servers.browser import Tab, chromium
from tests.servers.forked import Forked
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.redis import Redis
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_HOARD = 10_000
_MARKUP = "<img src=x onerror=\"alert('owned')\">"
_TOKEN = "a-token-that-is-hard-to-guess-0123456789"
_REFUSED = ("Failed to load resource",)  # Chromium's own line for a reply that is an error
_LONGEST_TASK = 1_000  # milliseconds, on a machine that others use too; drawing 10,000 rows takes more


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for the module: playwright's loop must be gone before other tests run theirs."""
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def hoarding(
    upstream: Upstream, pebble: Pebble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Mitmdump]]:
    """Start ``hoard`` from the first test on, beside the others: it takes seconds."""
    folder, port = tmp_path_factory.mktemp("hoard"), free_port()
    options = default_options(pebble, folder) | {"acme_admin_listen": f"127.0.0.1:{port}"}

    def start() -> Mitmdump:
        shelf.put_many(open_storage(f"file:{folder}", default_folder=folder), _HOARD, "hoard.test")
        return server.start()

    server = Forked(upstream.url, options)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(start)
    server.close()


@pytest.fixture
def hoard(hoarding: Future[Mitmdump]) -> Mitmdump:
    """A proxy with 10,000 certificates, of which every hundredth has expired."""
    return hoarding.result()


class Show(Protocol):
    """Open the page of a proxy; ``expected`` are parts of what the browser may complain of."""

    def __call__(self, proxy: Mitmdump, *, expected: tuple[str, ...] = (), width: int = 1280) -> Page: ...


@pytest.fixture
def show(browser: Browser) -> Iterator[Show]:
    """Open pages; at the end of the test they close, and nothing may have been complained of."""
    tabs: list[tuple[Tab, tuple[str, ...]]] = []

    def open_page(proxy: Mitmdump, *, expected: tuple[str, ...] = (), width: int = 1280) -> Page:
        tab = Tab(browser, width=width)
        tabs.append((tab, expected))
        tab.page.goto(f"http://{proxy.options['acme_admin_listen']}/")
        return tab.page

    yield open_page
    complaints = [text for tab, expected in tabs for text in tab.complaints_but(expected)]
    for tab, _ in tabs:
        tab.close()
    assert complaints == []


@pytest.fixture
def admin(proxy: StartProxy) -> Callable[..., Mitmdump]:
    """Start a proxy with the admin API."""

    def start(**options: Option) -> Mitmdump:
        return proxy(acme_admin_listen=f"127.0.0.1:{free_port()}", **options)  # type: ignore[arg-type]  # options only

    return start


def open_details(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("dialog", name=name)).to_be_visible()


def field(page: Page, name: str) -> str:
    """Return a field of the open details."""
    return page.locator(f"#details dt:text-is('{name}') + dd").inner_text()


def serial(page: Page) -> int:
    return int(field(page, "Serial number").replace(":", ""), 16)


def names(page: Page) -> list[str]:
    return page.locator("button.name").all_inner_texts()


# What a person does


def test_obtains_a_certificate_and_deletes_it(
    admin: Callable[..., Mitmdump], show: Show, pebble: Pebble, fresh_name: FreshName
) -> None:
    """An empty storage says how it fills; the form fills it, and takes one of the CA's limit; Cancel keeps what is
    there, "Delete only" tells no CA."""
    name, page = fresh_name(), show(admin(acme_ca=[f"{pebble.directory};orders=20/1h"]))
    expect(page.get_by_text("No certificate is stored yet. The first client")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready for the first certificate")

    page.get_by_label("Host name").fill(name)
    page.get_by_role("button", name="Obtain").click()

    expect(page.locator("#said-text")).to_have_text(f"certificate for host {name} is created")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#rows")).to_contain_text("valid")
    expect(page.locator("#rows")).to_contain_text("Pebble Intermediate CA")
    expect(page.locator("#rows time").first).to_have_text("in 89 days")
    expect(page.get_by_role("button", name="1 Valid")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("All certificates are in order")
    expect(page.locator("#cas")).to_contain_text("/my-account/")
    expect(page.locator("#cas")).to_contain_text("orders: 19 of 20 left")
    open_details(page, name)
    issued = serial(page)
    assert issued in pebble.issued_serials()
    assert field(page, "Kind").startswith("not in acme_certificates")

    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#confirm")).to_be_hidden()
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_label("Reason for the CA").select_option("none")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#said-text")).to_have_text(f"{name} is deleted, but not revoked.")
    expect(page.get_by_text("No certificate is stored yet. The first client")).to_be_visible()
    assert pebble.cert_status(issued)["Status"] == "Valid"


def test_shows_by_itself_what_happens_elsewhere(
    admin: Callable[..., Mitmdump], show: Show, root: str, fresh_name: FreshName
) -> None:
    """A handshake's certificate appears on the page without a reload, and the other rows are not redrawn."""
    first, second, server = fresh_name(), fresh_name(), admin()
    handshake(server.https_port, first, root)
    page = show(server)
    row = page.locator("#rows tr", has_text=first).element_handle()
    page.get_by_role("button", name=first, exact=True).focus()

    handshake(server.https_port, second, root)

    expect(page.locator("#rows tr")).to_have_count(2)
    expect(page.get_by_role("button", name="2 All")).to_be_visible()
    expect(page.get_by_role("button", name=first, exact=True)).to_be_focused()
    assert page.evaluate("([row, name]) => row.isConnected && row.innerText.includes(name)", [row, first])


def test_timeline_shows_what_happens_on_all_nodes(
    admin: Callable[..., Mitmdump],
    proxy: StartProxy,
    show: Show,
    dns: ChallTestSrv,
    root: str,
    fresh_name: FreshName,
) -> None:
    """What another node obtained, and what this one failed to; the plots count this node's handshakes alone."""
    here, there, failing = fresh_name(), fresh_name(), fresh_name()
    server, other = admin(), proxy(http_port=free_port())
    page = show(server)
    expect(page.locator("#timeline")).to_contain_text("Nothing has happened yet.")
    expect(page.locator("#handshakes-key")).to_have_text("No handshake yet")

    handshake(other.https_port, there, root)
    expect(page.locator("#timeline li")).to_have_count(1)
    expect(page.locator("#timeline li")).to_contain_text(there)
    for _ in range(2):
        handshake(server.https_port, here, root)
    dns.set_servfail(failing)
    untrusted(server.https_port, failing)

    events = page.locator("#timeline li")
    expect(events).to_have_count(3)
    expect(events.locator("strong")).to_have_text([failing, here, there])
    expect(events.locator(".badge")).to_have_text(["failed", "obtained", "obtained"])
    expect(events.first.locator(".reason")).not_to_be_empty()
    expect(page.locator("#handshakes-key li")).to_have_text(["1 from memory", "1 obtained", "1 fallback"])
    expect(page.locator("#holds-key")).to_contain_text("2 handshakes waited for a certificate")
    expect(page.locator("#expiry-key")).to_have_text("0 of 2 end within a week.")
    assert page.locator("#handshakes path.bar:not([d=''])").count() == 3
    page.get_by_text("Table of expiry").click()
    expect(page.locator("#expiry-table tr", has_text="90")).to_have_text(re.compile(r"90\s*2"))


def test_renews(admin: Callable[..., Mitmdump], show: Show, pebble: Pebble, root: str, fresh_name: FreshName) -> None:
    """Renew now has another serial number in the details, from the CA, and served."""
    name, server = fresh_name(), admin()
    before = handshake(server.https_port, name, root).leaf.serial_number
    page = show(server)
    open_details(page, name)
    assert serial(page) == before

    page.get_by_role("button", name="Renew now").click()

    expect(page.locator("#details-result")).to_have_text("Renewed. This is the new certificate.")
    assert serial(page) != before
    assert serial(page) == pebble.issued_serials()[-1]
    assert handshake(server.https_port, name, root).leaf.serial_number == serial(page)


def test_revokes_with_the_keyboard_alone(
    admin: Callable[..., Mitmdump], show: Show, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """Escape cancels and nothing happens; the reason that is chosen reaches the CA; Enter alone revokes nothing."""
    name, server = fresh_name(), admin()
    issued = handshake(server.https_port, name, root).leaf.serial_number
    page = show(server)
    press = page.keyboard.press
    expect(page.locator("#rows tr")).to_have_count(1)

    page.get_by_role("button", name="Renew all that are due").focus()
    press("Tab")
    expect(page.get_by_role("button", name=name, exact=True)).to_be_focused()
    press("Enter")
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    press("Tab")
    press("Tab")
    press("Enter")
    expect(page.get_by_label("Reason for the CA")).to_be_focused()
    press("Escape")
    expect(page.locator("#confirm")).to_be_hidden()
    assert pebble.cert_status(issued)["Status"] == "Valid"

    expect(page.get_by_role("button", name="Revoke…")).to_be_focused()
    press("Enter")
    press("ArrowDown")
    expect(page.get_by_label("Reason for the CA")).to_have_value("keyCompromise")
    press("Tab")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    press("Tab")
    press("Enter")

    said = f"The certificate for host {name} is revoked (keyCompromise) and replaced by a certificate with a new key."
    expect(page.locator("#said-text")).to_have_text(said)
    expect(page.locator("#rows tr")).to_have_count(1)
    assert len(pebble.issued_serials()) > pebble.issued_serials().index(issued) + 1
    assert pebble.cert_status(issued)["Status"] == "Revoked"
    assert pebble.cert_status(issued)["Reason"] == REASONS["keyCompromise"]


def test_focus_goes_on_where_a_row_is_gone(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """Who deletes with the keyboard is at the next row then, and at the list itself after the last one."""
    for name in ("a.example.test", "b.example.test"):
        shelf.put(store, shelf.aged(name))
    page = show(admin())
    for name in ("a.example.test", "b.example.test"):
        page.get_by_role("button", name=name, exact=True).focus()
        for key in ("Enter", "Tab", "Tab", "Enter"):
            page.keyboard.press(key)
        page.get_by_label("Reason for the CA").select_option("none")
        page.get_by_role("button", name="Delete", exact=True).press("Enter")
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        left = page.get_by_role("button", name="b.example.test", exact=True)
        expect(left if name.startswith("a") else page.locator("#certificates")).to_be_focused()


def test_starts_renewing_all_that_is_due(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """The button has the one that is due renewed, and the table shows that it is."""
    shelf.put(store, shelf.aged("late.example.test", "expiring"))
    page = show(admin())
    expect(page.get_by_role("heading", level=1)).to_have_text("1 certificate will expire soon")
    expect(page).to_have_title("(1 expiring) mitmproxy-acme")

    page.get_by_role("button", name="Renew all that are due").click()

    expect(page.locator("#said-text")).to_have_text("Renewal process started successfully")
    expect(page.locator("#rows .badge")).to_have_text("valid")
    expect(page).to_have_title("mitmproxy-acme")


class Held:
    """Requests of a page that wait on their way until ``go``."""

    def __init__(self, page: Page, method: str) -> None:
        self._method, self._waiting = method, list[Route]()
        page.route("**/acme/certificates/**", self._meet)

    def _meet(self, route: Route) -> None:
        if route.request.method == self._method:
            self._waiting.append(route)
        else:
            route.continue_()

    def go(self) -> None:
        for route in self._waiting:
            route.continue_()


def test_outcome_of_one_is_not_told_in_the_details_of_another(
    admin: Callable[..., Mitmdump], show: Show, store: Storage
) -> None:
    """Who looks at another certificate while one is renewed learns of that one by its name."""
    for name in ("a.example.test", "b.example.test"):
        shelf.put(store, shelf.aged(name))
    page = show(admin(acme_ca=[shelf.NO_CA]), expected=_REFUSED)
    held = Held(page, "POST")
    open_details(page, "a.example.test")
    page.get_by_role("button", name="Renew now").click()
    page.get_by_role("button", name="Close").click()
    open_details(page, "b.example.test")

    held.go()

    expect(page.locator("#said-text")).to_contain_text("a.example.test was not renewed: ")
    expect(page.locator("#details-result")).to_be_empty()


def test_failure_of_a_revocation_is_told_to_who_has_cancelled(
    admin: Callable[..., Mitmdump], show: Show, store: Storage
) -> None:
    """Cancel ends the waiting alone: what became of it is said all the same."""
    shelf.put(store, shelf.aged("a.example.test"))
    page = show(admin(acme_ca=[shelf.NO_CA]), expected=_REFUSED)
    held = Held(page, "DELETE")
    open_details(page, "a.example.test")
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Revoke and delete").click()
    page.get_by_role("button", name="Cancel").click()

    held.go()

    expect(page.locator("#said-text")).to_have_text(re.compile(r"^a\.example\.test: .+ cannot be reached"))


# What it tells


def test_details_follow_what_is_stored(
    admin: Callable[..., Mitmdump], show: Show, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """What is renewed and deleted elsewhere meanwhile is so in the details that are open, too."""
    name, server = fresh_name(), admin()
    api = Api(int(str(server.options["acme_admin_listen"]).rpartition(":")[2]), token="")
    handshake(server.https_port, name, root)
    page = show(server, expected=_REFUSED)
    open_details(page, name)
    before = field(page, "Serial number")

    assert api("POST", f"/acme/certificates/{name}/renew", json_body={}).status == 200
    expect(page.locator("#details-fields")).not_to_contain_text(before)
    assert serial(page) == pebble.issued_serials()[-1]
    assert api("DELETE", f"/acme/certificates/{name}?reason=none").status == 204
    expect(page.locator("#details-result")).to_have_text(f"Certificate for host {name} not found in storage")
    assert api.create(name).status == 201
    expect(page.locator("#details-result")).to_be_empty()
    assert serial(page) == pebble.issued_serials()[-1]


def test_failing_name_has_its_reason_and_its_next_try(
    admin: Callable[..., Mitmdump], show: Show, dns: ChallTestSrv, fresh_name: FreshName
) -> None:
    """The CA's reason is shown in the message, in the list and in the title, with the time of the next attempt."""
    name, page = fresh_name(), show(admin(), expected=_REFUSED)
    dns.set_servfail(name)

    page.get_by_label("Host name").fill(name)
    page.get_by_role("button", name="Obtain").click()

    expect(page.locator("#said-text")).to_contain_text("failed to update certificate")
    failure = page.locator("#failing li", has_text=name)
    expect(failure).to_contain_text(f"could not validate {name}")
    expect(failure).to_contain_text("1 failure in a row; next attempt")
    expect(failure.locator("time")).to_have_text(re.compile(r"^in \d+ seconds$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("1 name is failing")
    expect(page).to_have_title("(1 failing) mitmproxy-acme")


def test_stolen_key_that_is_not_revoked_yet_is_said(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """It is worse than a CA that is down, and stays until the CA has revoked it."""
    shelf.put(store, shelf.aged("a.example.test"))
    server = admin(acme_ca=[shelf.NO_CA])
    api = Api(int(str(server.options["acme_admin_listen"]).rpartition(":")[2]), token="")
    page = show(server)

    assert api("DELETE", "/acme/certificates/a.example.test?reason=keyCompromise").status == 500

    expect(page.get_by_role("heading", level=1)).to_have_text("1 stolen key is not revoked yet")
    expect(page).to_have_title("(not revoked) mitmproxy-acme")
    unrevoked = page.locator("#failing li", has_text="The stolen key is not revoked yet; next attempt")
    expect(unrevoked).to_contain_text("a.example.test")
    expect(unrevoked).to_contain_text("cannot be reached")


def test_long_reason_leaves_room_for_other_rows(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """A long reason is shortened in the table, with the time of the next attempt, and complete in the details."""
    reason = "looking up the name's addresses " * 15 + "failed"  # as long as a stored one can be
    shelf.put(store, shelf.aged("a.example.test"))
    shelf.fail(store, "a.example.test", reason)
    page = show(admin())

    expect(page.locator("#rows .trouble time")).to_be_visible()
    box = page.locator("#rows tr").bounding_box()
    assert box is not None
    assert box["height"] < 200
    open_details(page, "a.example.test")
    assert reason in field(page, "Last failure")


def test_says_which_cas_are_left_alone(admin: Callable[..., Mitmdump], show: Show, fresh_name: FreshName) -> None:
    """All of them by name if there is no other; no name is failing, since none is in backoff."""
    urls = [f"https://127.0.0.1:{free_port()}/{word}" for word in ("first", "second")]
    page = show(admin(acme_ca=urls), expected=_REFUSED)
    page.get_by_label("Host name").fill(fresh_name())
    page.get_by_role("button", name="Obtain").click()

    expect(page.get_by_role("heading", level=1)).to_have_text(f"{urls[0]}, {urls[1]} cannot be used now")
    expect(page.locator("#cas .badge")).to_have_text(["backing off", "backing off"])
    expect(page.locator("#failing")).to_have_text("No name is waiting after a failure.")


def test_markup_is_text(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """Markup in an issuer, a name, a failure or what is searched for is shown as it is, and makes no element."""
    shelf.put(store, shelf.aged("a.example.test", issuer=_MARKUP, others=[_MARKUP]))
    shelf.fail(store, "a.example.test", f"the CA said {_MARKUP}")
    shelf.fail(store, "b.example.test", f"and again <script>{_MARKUP}</script>")
    page = show(admin())

    expect(page.locator("#rows tr")).to_contain_text(_MARKUP)
    expect(page.locator("#failing")).to_contain_text(f"the CA said {_MARKUP}")
    expect(page.locator("#failing")).to_contain_text(f"and again <script>{_MARKUP}</script>")
    open_details(page, "a.example.test")
    assert field(page, "Issuer") == _MARKUP
    assert _MARKUP in field(page, "Names")
    assert _MARKUP in field(page, "Last failure")
    page.get_by_role("button", name="Close").click()
    page.get_by_label("Search names").fill("<img src=y>")
    expect(page.get_by_text("No certificate matches.")).to_be_visible()
    page.get_by_label("Host name").fill("<img src=z>")
    expect(page.locator("img, script:not([src]), [onerror]")).to_have_count(0)


def test_forged_event_is_text(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """A writer of the storage puts text on the page, of bounded length, and a hundred events at most."""
    log, now = EventLog(store, UNSEALED), int(time.time() * 1000)
    for number in range(120):
        id = EventId(now - number, 0, "forged")
        log.write(LoggedEvent(id, EventKind.FAILED, _MARKUP, _MARKUP, _MARKUP, reason=_MARKUP * 50))
    page = show(admin())

    expect(page.locator("#timeline li")).to_have_count(100)
    expect(page.locator("#timeline li").first).to_contain_text(_MARKUP)
    assert len(page.locator("#timeline .reason").first.inner_text()) <= 300
    expect(page.locator("img, script:not([src]), [onerror]")).to_have_count(0)


def test_narrow_page_has_no_sideways_scrolling(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """At 320 pixels all is within the page's width, with a name as long as names can be."""
    long = ".".join(["a" * 60] * 3 + ["example.test"])
    shelf.put(store, shelf.aged(long))
    shelf.fail(store, long, f"no address for {long}")
    page = show(admin(), width=320)

    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#failing li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    open_details(page, long)
    assert (
        page.evaluate(
            "(() => { const d = document.getElementById('details'); return d.scrollWidth - d.clientWidth })()"
        )
        == 0
    )


# Who may look


def test_asks_for_the_token_and_forgets_it(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """Without it nothing is shown; a wrong one is said to be; the right one lasts for the tab, or until forgotten."""
    shelf.put(store, shelf.aged("a.example.test"))
    page = show(admin(acme_admin_token=_TOKEN), expected=_REFUSED)
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    expect(page.get_by_role("main")).to_be_hidden()

    field.fill("a wrong one")
    field.press("Enter")
    expect(page.get_by_role("alert").first).to_have_text("This is not the token.")
    field.fill(_TOKEN)
    field.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(field).to_be_hidden()
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert page.evaluate("localStorage.length + document.cookie.length") == 0

    page.get_by_role("button", name="Forget the token").click()
    expect(field).to_be_focused()
    expect(page.locator("#rows tr")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0


def test_asks_for_the_token_whatever_is_open(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """A proxy with another token shows nothing any more, and its form has the keyboard."""
    shelf.put(store, shelf.aged("a.example.test"))
    server = admin(acme_admin_token=_TOKEN)
    page = show(server, expected=(*_REFUSED, "net::ERR_"))
    page.get_by_label("Token", exact=True).fill(_TOKEN)
    page.keyboard.press("Enter")
    open_details(page, "a.example.test")
    page.get_by_role("button", name="Revoke…").click()

    server.stop()
    server.options["acme_admin_token"] = _TOKEN[::-1]
    server.start()

    expect(page.get_by_role("alert").first).to_have_text("This is not the token.")
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.type(_TOKEN[::-1])
    page.keyboard.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(1)


# What goes wrong


def test_data_nodes_refusal_is_shown(
    admin: Callable[..., Mitmdump], show: Show, store: Storage, fresh_name: FreshName
) -> None:
    """A data node says of itself that it orders nothing, and its refusal to renew is shown as it is."""
    name = fresh_name()
    shelf.put(store, shelf.aged(name, "due"))
    page = show(admin(acme_role="data"), expected=_REFUSED)
    expect(page.locator("#cas")).to_contain_text("the control nodes have the account")
    expect(page.locator("#nodes")).to_contain_text("data, version")

    page.get_by_role("button", name="Renew all that are due").click()
    expect(page.locator("#said-text")).to_have_text(
        "this is a data node, which never talks to a CA; ask a control node"
    )
    open_details(page, name)
    page.get_by_role("button", name="Renew now").click()
    expect(page.locator("#details-result")).to_contain_text("data node")
    expect(page.locator("#details-result")).to_have_attribute("data-tone", "bad")


def test_storage_that_is_down_is_said_first(admin: Callable[..., Mitmdump], show: Show, tmp_path: Path) -> None:
    """While Redis is down the page leads with it, keeps what it knew, and recovers by itself."""
    with started(Redis()) as redis:
        url = f"redis://127.0.0.1:{redis.port}/"
        shelf.put(open_storage(url, default_folder=tmp_path), shelf.aged("a.example.test"))
        page = show(admin(acme_storage=url))
        expect(page.locator("#rows tr")).to_have_count(1)

        redis.stop()
        expect(page.get_by_role("heading", level=1)).to_have_text("The storage is down")
        expect(page.locator("#storage .badge")).to_have_text("down")
        expect(page.locator("#verdict-text")).to_have_text(re.compile(r"\w\. Certificates in memory are served"))
        expect(page).to_have_title("(storage down) mitmproxy-acme")
        expect(page.locator("#rows tr")).to_have_count(1)
        redis.start()
        expect(page.get_by_role("heading", level=1)).to_have_text("All certificates are in order")


def test_lost_connection_is_said_and_mended(admin: Callable[..., Mitmdump], show: Show, store: Storage) -> None:
    """When the proxy ends the page says so and goes on by itself once there is one again, with what is new."""
    server = admin()
    page = show(server, expected=("net::ERR_",))
    expect(page.locator("#live")).to_have_text("Live")

    server.stop()
    expect(page.locator("#live")).to_have_text(re.compile(r"^Connection lost, retrying in \d+ s$"))
    expect(page).to_have_title("(connection lost) mitmproxy-acme")
    shelf.put(store, shelf.aged("a.example.test"))
    server.start()

    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert "Traceback" not in server.log.read_text()


def test_what_changed_while_the_proxy_was_away_is_read(
    admin: Callable[..., Mitmdump], show: Show, store: Storage
) -> None:
    """Even if all numbers are the same as before the restart."""
    soonest = shelf.aged("z.example.test", "expiring")
    for certificate in (shelf.aged("a.example.test", issuer="Old Issuer"), soonest):
        shelf.put(store, certificate)
    server = admin(acme_role="data")
    page = show(server, expected=("net::ERR_",))
    expect(page.locator("#rows")).to_contain_text("Old Issuer")

    server.stop()
    expect(page.locator("#live")).to_contain_text("Connection lost")
    stored = Store(store, UNSEALED)
    assert stored.replace(stored.slot(ServerName("a.example.test")), shelf.aged("a.example.test", issuer="New Issuer"))
    server.start()

    expect(page.locator("#rows")).to_contain_text("New Issuer")


# Very many


def test_pages_filters_and_searches_ten_thousand(hoard: Mitmdump, show: Show) -> None:
    """Only one page of them is ever drawn, each is found by a part of its name, and nothing freezes the page."""
    page = show(hoard)
    page.evaluate(
        "() => { window.longest = 0; new PerformanceObserver((seen) => seen.getEntries().forEach("
        "(task) => { window.longest = Math.max(window.longest, task.duration); })).observe({ type: 'longtask' }); }"
    )
    expect(page.locator("#range")).to_have_text("1\u201350 of 10,000", timeout=30_000)
    assert names(page) == [f"n{number:05}.hoard.test" for number in range(50)]
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()

    page.get_by_role("button", name="Next").click()
    expect(page.locator("#range")).to_have_text("51\u2013100 of 10,000")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#range")).to_have_text("101\u2013150 of 10,000")
    assert names(page)[0] == "n00100.hoard.test"
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#range")).to_have_text("51\u2013100 of 10,000")

    page.get_by_role("button", name="100 Expired").click()
    expect(page.locator("#range")).to_have_text("1\u201350 of 100")
    assert set(page.locator("#rows .badge").all_inner_texts()) == {"expired"}
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#range")).to_have_text("51\u2013100 of 100")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()

    expect(page.get_by_role("button", name="Previous")).to_be_focused()  # not nowhere: Next cannot be pressed any more

    page.get_by_label("Search names").press_sequentially("n0770")
    expect(page.locator("#range")).to_have_text("1\u20131")
    assert names(page) == ["n07700.hoard.test"]
    page.get_by_role("button", name="10,000 All").click()
    expect(page.locator("#range")).to_have_text("1\u201310")
    page.get_by_label("Search names").fill("9.hoard")
    expect(page.locator("#range")).to_have_text("1\u201350, and more")
    assert page.locator("#rows tr").count() == 50

    page.get_by_label("Search names").fill("")
    page.get_by_label("Order", exact=True).select_option("First to expire")
    expect(page.locator("#range")).to_have_text("1\u201350 of 10,000")
    assert names(page) == [f"n{number:05}.hoard.test" for number in range(0, 5_000, 100)]
    for numbers in (range(5_000, 10_000, 100), (1, 2, 3)):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("button.name").first).to_have_text(f"n{numbers[0]:05}.hoard.test")
        assert names(page)[: len(numbers)] == [f"n{number:05}.hoard.test" for number in numbers]
    assert page.evaluate("window.longest") < _LONGEST_TASK


def test_name_that_is_not_allowed_is_refused(hoard: Mitmdump, show: Show) -> None:
    """The API's own sentence is shown, and the button can be pressed again."""
    page = show(hoard, expected=_REFUSED)

    page.get_by_label("Host name").fill("www.elsewhere.test")
    page.get_by_role("button", name="Test challenge").click()

    expect(page.locator("#said-text")).to_contain_text("www.elsewhere.test: host is not included in acme_domains")
    expect(page.get_by_role("button", name="Test challenge")).to_be_enabled()
