"""A-labels that encode no character are invalid names to mitmproxy, not a crash, while the addon has a runtime."""

import encodings.punycode
from pathlib import Path

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.net.check import is_valid_host
from mitmproxy.net.http import url
from mitmproxy.test import taddons

from mitmproxy_acme.mitm import punycode_errors
from mitmproxy_acme.mitm.addon import AcmeAddon

_NAME = "xn--mn999999999999999n"


async def test_label_without_a_character_is_an_invalid_name(tmp_path: Path) -> None:
    addon = AcmeAddon()
    with taddons.context(Proxyserver(), addon) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        options = {"acme_domains": ["a.test"], "acme_tos_accepted": True, "acme_storage": f"file:{tmp_path}"}
        tctx.configure(addon, **options)
        assert not is_valid_host(_NAME)
        assert url.parse_authority(_NAME.encode(), check=False) == (_NAME, None)
        assert is_valid_host("xn--mnchen-3ya.test")
        addon.done()
    assert vars(encodings.punycode)["punycode_decode"] is punycode_errors._decode
