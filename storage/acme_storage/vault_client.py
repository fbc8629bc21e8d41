"""Where a Vault or OpenBao is, and the client that reaches it: a URL, and Vault's own variables where it is silent.

This module knows addresses and TLS; it must not know what is stored. ``vault_login`` knows how to log in.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import hvac
import requests

from acme_storage import web
from acme_storage.address import Address, is_here
from acme_storage.vault_login import Session, login_of

PARAMETERS = (
    "auth", "auth_path", "role", "role_id", "secret_id", "jwt_path", "token", "namespace", "timeout", "verify",
    "ca_file", "cert_file", "key_file", "server_name",
)  # fmt: skip


def reach(address: Address) -> tuple[Any, Session]:
    """Return the client that an address means, and what logs it in; nothing is connected yet."""
    skip = address.flag("", "VAULT_SKIP_VERIFY", default=False)
    verify = address.flag("verify", default=not skip)
    certificate = address.text("cert_file", "VAULT_CLIENT_CERT")
    tls = web.Tls(
        (address.text("ca_file", "VAULT_CACERT") or True) if verify else False,
        web.client_certificate(certificate, address.text("key_file", "VAULT_CLIENT_KEY"), address),
        address.text("server_name", "VAULT_TLS_SERVER_NAME"),
    )
    payload = login_of(address)
    client = hvac.Client(
        url=_server(address),
        token=(address.secret("token", "VAULT_TOKEN") or "") if payload is None else "",
        cert=tls.certificate,
        verify=tls.verify,
        timeout=web.patience(address),
        session=web.configure(requests.Session(), tls),
        namespace=address.text("namespace", "VAULT_NAMESPACE"),
    )
    return client, Session(client, address.text("auth_path") or address.text("auth") or "token", payload)


def _server(address: Address) -> str:
    if not address.hosts and (named := os.environ.get("VAULT_ADDR")):
        parts = urlsplit(named)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("VAULT_ADDR must be http://host:port or https://host:port")
        return f"{parts.scheme}://{parts.netloc}"
    host, port = address.hosts[0] if address.hosts else ("127.0.0.1", None)
    secure = "https" if address.scheme == "vault+https" else "http"
    return f"{secure}://{f'[{host}]' if ':' in host else host}:{port or 8200}"


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; nothing for any other."""
    server = urlsplit(_server(web.address_of(url, PARAMETERS)))
    return "" if server.scheme == "https" or is_here(server.hostname or "") else "vault+https://"
