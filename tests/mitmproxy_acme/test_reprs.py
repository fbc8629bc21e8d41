"""No secret is in the repr of a value: a traceback, a log line or a failed assertion may show it."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

import acme_storage
import mitmproxy_acme

# Each field that holds a secret, or something that may hold one.
_SECRET = {
    "StorageUrl": {"password", "parameters"},
    "Guard": {"token"},
    "Prover": {"key"},
    "ExternalAccountBinding": {"hmac_key"},
    "CaSettings": {"eab_hmac_key"},
    "Config": {
        "account_key",
        "account_storage_keys",
        "admin_token",
        "ask",
        "storage",
        "storage_keys",
        "webhook",
        "webhook_key",
    },
    "Account": {"key", "next_key", "eab_hmac_key"},
    "Certificate": {"key"},
    "_Key": {"_fernet", "_aead", "_mac"},
    "Examined": {"record"},
    "SourceRecord": {"value"},
}
# What is called as secrets are, and is none: names and keys of records, kinds of keys, flags, and what anyone may see.
_PUBLIC = {
    "key_type",
    "key_types",
    "secret_variables",
    "storage_kind",
    "storage_sealed_only",
    "storage_trouble",
    ("Examined", "key"),
    ("Step", "key"),
    ("Lease", "key"),
    ("Lease", "storage"),
    ("Repair", "storage"),
    ("Probe", "token"),
}
_WORDS = {"key", "keys", "token", "password", "secret", "hmac", "jwk", "storage", "webhook"}


def _values() -> Iterator[type]:
    """Yield every dataclass of the addon and the storage."""
    for package in (mitmproxy_acme, acme_storage):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                module = importlib.import_module(found.name)
                for each in vars(module).values():
                    if isinstance(each, type) and dataclasses.is_dataclass(each) and each.__module__ == found.name:
                        yield each


def test_secret_fields_are_in_no_repr() -> None:
    """Each of the list, which names no other."""
    fields = {kind.__name__: {field.name: field.repr for field in dataclasses.fields(kind)} for kind in _values()}
    assert {(kind, name) for kind, names in _SECRET.items() for name in names if fields[kind][name]} == set()


def test_field_that_is_called_as_a_secret_is_hidden_or_known_to_be_none() -> None:
    """A new one must be put into one of the lists above."""
    shown = {
        (kind.__name__, field.name)
        for kind in _values()
        for field in dataclasses.fields(kind)
        if field.repr and _WORDS & set(field.name.split("_"))
    }
    assert {pair for pair in shown if pair not in _PUBLIC and pair[1] not in _PUBLIC} == set()
