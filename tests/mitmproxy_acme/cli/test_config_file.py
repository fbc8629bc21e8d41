"""Options as a config.yaml that a person reads and mitmproxy loads."""

from pathlib import Path

from mitmproxy_acme.cli.config_file import config_file
from mitmproxy_acme.cli.mitmproxy_options import read_settings

SETTINGS = {
    "confdir": "/elsewhere",
    "block_global": False,
    "mode": ["reverse:https://127.0.0.1:8000@443"],
    "acme_domains": ["*.example.com", r"re:[a-z]+\.x\.example\.com"],
    "acme_certificates": [],
    "acme_storage": "file:",
    "acme_email": "12",
    "acme_handshake_wait": 20,
    "acme_tos_accepted": True,
    "flow_detail": "0",
    "stream_large_bodies": "3m",
}


def test_file_says_the_same(tmp_path: Path) -> None:
    """Each option is read back in its type; those of mitmproxy, which --set gave as texts, too."""
    (tmp_path / "config.yaml").write_text(config_file(SETTINGS))

    read = read_settings(tmp_path, [])

    kept = {name: value for name, value in SETTINGS.items() if name not in ("confdir", "acme_certificates")}
    assert read == kept | {"flow_detail": 0}


def test_file_explains_itself() -> None:
    """It says how to start it, and what the options of an edge are for; the terms only while they are not accepted."""
    text = config_file(SETTINGS)
    assert text.startswith("# mitmproxy's config.yaml. It starts with: mitmproxy-acme run\n")
    assert "# clients from the internet, and the CA, may connect\nblock_global: false" in text
    assert "# Before that" not in text

    assert "# Before that, read the CA's terms of service" in config_file(SETTINGS | {"acme_tos_accepted": False})
