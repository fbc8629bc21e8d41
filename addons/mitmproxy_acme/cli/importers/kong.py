"""Keys of Kong's ACME plugin, and of lua-resty-acme beneath it, in Redis, Consul or Vault.

    kong_acme:cert_key:HOST             {"key", "cert"}; from Kong without a database, or in hybrid mode
    kong_acme:renew_config:HOST         for every host; with a database, Kong keeps the certificate there
    kong_acme:account:CA:BASE64-EMAIL   names the CA
    domain:rsa:HOST, domain:ecc:HOST    {"pkey", "cert", "domain", "type", "updated"}; from lua-resty-acme's autossl

In Consul and Vault each slash of a key is a hyphen.

This module knows their layout; it must not know the servers. Their account keys stay where they are.
"""

import json
from collections.abc import Collection, Iterator

from acme_storage import Reader, StorageCorrupt

from .item import ImportItem, Rejected, from_pem

_CERTIFICATE, _RENEWAL, _ACCOUNT = "kong_acme:cert_key:", "kong_acme:renew_config:", "kong_acme:account:"
_AUTOSSL = ("domain:rsa:", "domain:ecc:")


def read(raw: Reader, known: Collection[str]) -> Iterator[ImportItem]:
    """Yield the items; ``known`` directory URLs identify CAs. Raises ``StorageError``."""
    keys = raw.keys(_CERTIFICATE)
    hosts = {key.removeprefix(_CERTIFICATE) for key in keys}
    ca = _directory(raw, known) if keys else ""
    yield from (item for key in keys if (item := _read(raw, key, _CERTIFICATE, "key", ca)) is not None)
    for key in raw.keys(_RENEWAL):
        if (host := key.removeprefix(_RENEWAL)) not in hosts:
            yield Rejected(host, "Kong keeps this certificate in its own database, not here")
    for prefix in _AUTOSSL:
        found = (_read(raw, key, prefix, "pkey", "") for key in raw.keys(prefix))
        yield from filter(None, found)


def _read(raw: Reader, key: str, prefix: str, field: str, ca: str) -> ImportItem | None:
    name = key.removeprefix(prefix)
    try:
        if (value := raw.get(key)) is None:  # already deleted
            return None
        fields = json.loads(value)
        chain, private_key = fields["cert"].encode(), fields[field].encode()
    except StorageCorrupt as error:
        return Rejected(name, str(error))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # Only the class of the error: its text may quote the value, and the value holds a private key.
        return Rejected(name, f"its value is not JSON with cert and {field} ({type(error).__name__})")
    return from_pem(name, chain, private_key, ca)


def _directory(raw: Reader, known: Collection[str]) -> str:
    """Return the CA of the only account; empty if there are several, or the CA is unknown."""
    accounts = {key.removeprefix(_ACCOUNT).rpartition(":")[0] for key in raw.keys(_ACCOUNT)}
    if len(accounts) != 1:
        return ""
    (written,) = accounts
    # Kong appends /directory if the operator left it out.
    urls = {written, written.rstrip("/") + "/directory", written.rstrip("-") + "-directory"}
    spelt = next((url for url in known if url in urls or url.replace("/", "-") in urls), "")
    if spelt or not written.startswith("https://"):
        return spelt
    return written if written.endswith("/directory") else written.rstrip("/") + "/directory"
