"""What a request of Kong's own resource asks for; end_to_end has the requests themselves."""

from types import SimpleNamespace
from typing import Any

import pytest

from mitmproxy_acme.admin.api.base_handler import HEADERS
from mitmproxy_acme.admin.api.handlers import AcmeHandler
from mitmproxy_acme.core.names import ServerName
from tests.mitmproxy_acme.conftest import MakeManager


async def test_self_test_is_of_the_name_and_not_of_its_kind_of_key(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a second certificate is no part of a host."""
    asked, said = list[str](), list[object]()

    class Handler:
        """As much of one as answers."""

        context = SimpleNamespace(manager=make_manager(acme_key_type=("ecdsa-p256", "rsa-2048")))

        def reply(self, status: int, document: object) -> None:
            said.append((status, document))

    def note(_: object, host: str) -> None:
        asked.append(host)

    monkeypatch.setattr("mitmproxy_acme.diagnostics.http_self_test.find_problem", note)
    handler: Any = Handler()
    id = handler.context.manager.config.id_for(ServerName("a.example.test"), "rsa-2048")
    assert id != "a.example.test"
    await AcmeHandler._test(handler, id)
    assert asked == ["a.example.test"]
    assert said == [(200, {"message": f"sanity test for host {id} passed"})]


def test_page_may_be_in_no_frame_and_load_nothing_else() -> None:
    """Another site could have a person click on what he does not see."""
    policy = HEADERS["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not any(word in HEADERS["Content-Security-Policy"] for word in ("unsafe", "*", "http"))
    assert (HEADERS["X-Content-Type-Options"], HEADERS["Cache-Control"]) == ("nosniff", "no-store")
