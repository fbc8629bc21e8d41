"""The client for a Vault or OpenBao server: from a URL, and from Vault's own environment variables.

This module knows URLs and TLS; it must not know what is stored. ``vault_login`` knows how to log in.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import hvac
import requests

from acme_storage import http_session
from acme_storage.url import StorageUrl, is_here
from acme_storage.vault_login import Session, login_of

PARAMETERS = (
    "auth", "auth_path", "role", "role_id", "secret_id", "jwt_path", "token", "namespace", "timeout", "verify",
    "ca_file", "cert_file", "key_file", "server_name",
)  # fmt: skip


def reach(parsed: StorageUrl) -> tuple[Any, Session]:
    """Return the client for a URL, and its login session; nothing is connected yet."""
    skip = parsed.flag("", "VAULT_SKIP_VERIFY", default=False)
    verify = parsed.flag("verify", default=not skip)
    certificate = parsed.text("cert_file", "VAULT_CLIENT_CERT")
    tls = http_session.Tls(
        (parsed.text("ca_file", "VAULT_CACERT") or True) if verify else False,
        http_session.client_certificate(certificate, parsed.text("key_file", "VAULT_CLIENT_KEY"), parsed),
        parsed.text("server_name", "VAULT_TLS_SERVER_NAME"),
    )
    payload = login_of(parsed)
    client = hvac.Client(
        url=_server(parsed),
        token=(parsed.secret("token", "VAULT_TOKEN") or "") if payload is None else "",
        cert=tls.certificate,
        verify=tls.verify,
        timeout=http_session.timeouts(parsed),
        session=http_session.configure(requests.Session(), tls),
        namespace=parsed.text("namespace", "VAULT_NAMESPACE"),
    )
    return client, Session(client, parsed.text("auth_path") or parsed.text("auth") or "token", payload)


def _server(parsed: StorageUrl) -> str:
    if not parsed.hosts and (named := os.environ.get("VAULT_ADDR")):
        parts = urlsplit(named)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("VAULT_ADDR must be http://host:port or https://host:port")
        return f"{parts.scheme}://{parts.netloc}"
    host, port = parsed.hosts[0] if parsed.hosts else ("127.0.0.1", None)
    secure = "https" if parsed.scheme == "vault+https" else "http"
    return f"{secure}://{f'[{host}]' if ':' in host else host}:{port or 8200}"


def plain_text(url: str) -> str:
    """Return what to write instead of a URL that reaches another machine in plain text; empty for any other URL."""
    server = urlsplit(_server(http_session.parse_http_url(url, PARAMETERS)))
    return "" if server.scheme == "https" or is_here(server.hostname or "") else "vault+https://"
