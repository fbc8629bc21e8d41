"""What the options say of the storage: its URL, the keys that seal what is there, and the role of this node on it.

This module knows these options; it must not open a storage, or a record.
"""

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from .choices import choice
from .secret_references import read_storage_keys, read_storage_url


def parse_storage(given: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the fields of the storage, and of what this node does on it."""
    return {
        "storage": read_storage_url(given["acme_storage"], warnings),
        "storage_keys": read_storage_keys("acme_storage_key", given["acme_storage_key"], warnings),
        "account_storage_keys": _account_storage_keys(given, warnings),
        "storage_sealed_only": _sealed_only(given),
        "role": _role(given),
    }


def _account_storage_keys(given: Mapping[str, Any], warnings: list[str]) -> tuple[str, ...]:
    option = "acme_account_storage_key"
    if given[option] and given["acme_role"] == "data":
        warnings.append(f"{option}: a data node opens no account; leave it out there, so that it cannot")
        return ()
    return read_storage_keys(option, given[option], warnings)


def _sealed_only(given: Mapping[str, Any]) -> bool:
    sealed_only: bool = given["acme_storage_sealed_only"]
    if sealed_only and not given["acme_storage_key"]:
        raise ConfigError(
            "acme_storage_sealed_only: nothing is sealed, for acme_storage_key is not set; set it, or leave this out"
        )
    return sealed_only


def _role(given: Mapping[str, Any]) -> str:
    role = choice(given, "acme_role")
    if role != "standalone" and given["acme_storage"].lower().startswith("memory:"):
        raise ConfigError(
            f"acme_role: a {role} node works through a storage that other nodes reach, and acme_storage is memory:; "
            "name a shared one, or use standalone"
        )
    return role
