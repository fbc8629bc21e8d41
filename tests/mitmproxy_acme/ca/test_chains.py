"""Which of several chains is served, and what happens where an alternate cannot be fetched."""

import pytest

from mitmproxy_acme.ca import chains
from mitmproxy_acme.core.errors import IssuerUnavailable
from tests.mitmproxy_acme.fakes import make_certificate

DEFAULT = make_certificate(["a.example.test"], issuer_name="Default").chain_pem
WANTED = make_certificate(["a.example.test"], issuer_name="Wanted").chain_pem


class Ca:
    """Offers the default chain, and others by their URLs; None is one that it does not give."""

    def __init__(self, alternates: dict[str, str | None]) -> None:
        self.chains: dict[str, str | None] = {"default": DEFAULT, **alternates}
        self.asked: list[str] = []

    async def download(self, url: str) -> tuple[str, tuple[str, ...]]:
        self.asked.append(url)
        if (chain := self.chains[url]) is None:
            raise IssuerUnavailable("the CA answers 500")
        return chain, tuple(other for other in self.chains if other != "default")


@pytest.mark.parametrize(
    ("alternates", "served"),
    [
        ({}, DEFAULT),
        ({"a": DEFAULT, "b": WANTED}, WANTED),
        ({"a": None, "b": WANTED}, WANTED),
        ({"a": None}, DEFAULT),
        ({"a": "<html>"}, DEFAULT),
    ],
    ids=["none", "second", "one fails", "all fail", "junk"],
)
async def test_preferred_chain_or_the_default(alternates: dict[str, str | None], served: str) -> None:
    """The order succeeds without the preferred one."""
    ca = Ca(alternates)
    assert await chains.choose(ca.download, "default", "Wanted", "ca") == served


async def test_default_that_cannot_be_fetched_fails() -> None:
    """There is nothing to serve."""
    ca = Ca({})
    ca.chains["default"] = None
    with pytest.raises(IssuerUnavailable):
        await chains.choose(ca.download, "default", "Wanted", "ca")


async def test_alternates_are_not_asked_for_where_the_default_will_do() -> None:
    """Each is a request of its own."""
    ca = Ca({"a": WANTED})
    assert await chains.choose(ca.download, "default", "Default", "ca") == DEFAULT
    assert ca.asked == ["default"]
