"""The addons of examples/addons, with ours in one mitmdump: the events reach them."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.end_to_end.client import eventually, handshake, pem, untrusted
from tests.end_to_end.conftest import StartProxy
from tests.servers.listener import Listener
from tests.servers.pebble import ChallTestSrv

_ADDONS = Path(__file__).resolve().parents[2] / "examples" / "addons"

type FreshName = Callable[[], str]


def test_obtained_certificate_is_written_for_another_server(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """One file, with the served chain and its key, which only its owner can read; no other file."""
    running, name, folder = proxy(start=False), fresh_name(), tmp_path / "nginx"
    running.extra_arguments += [
        "-s",
        str(_ADDONS / "write_certificates.py"),
        "--set",
        f"write_certificates_to={folder}",
    ]
    running.start()

    served = handshake(running.https_port, name, root)

    path = folder / f"{name}.pem"
    eventually(path.exists)
    text = path.read_text()
    assert text.startswith(pem(served.leaf))
    leaf = x509.load_pem_x509_certificates(text.encode())[0]
    assert load_pem_private_key(text.encode(), None).public_key() == leaf.public_key()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    eventually(lambda: f"wrote {path}" in running.log_text())
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def test_chat_is_told_of_a_failure(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """A failed validation is sent to the chat's webhook, with the reason and the time of the next attempt."""
    name = fresh_name()
    dns.set_servfail(name)
    with Listener() as chat:
        running = proxy(start=False)
        running.extra_arguments += ["-s", str(_ADDONS / "tell_chat.py"), "--set", f"tell_chat_url={chat.url}"]
        running.start()
        untrusted(running.https_port, name)
        eventually(lambda: chat.received)
        (request,) = chat.received
    text = json.loads(request.body)["text"]
    assert text.startswith(f"{name}: no certificate: ")
    assert "retry in" in text
    assert chat.url not in running.log_text()
