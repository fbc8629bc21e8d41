"""The options about storage: its URL, the keys that seal its records, and this node's role.

This module knows these options; it must not open a storage, or a record.
"""

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from .option_values import choice
from .secret_references import read_storage_keys, read_storage_url


def parse_storage(given: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the fields about the storage and this node's role."""
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
        warnings.append(f"{option}: data nodes do not use accounts; do not give this key to them")
        return ()
    return read_storage_keys(option, given[option], warnings)


def _sealed_only(given: Mapping[str, Any]) -> bool:
    sealed_only: bool = given["acme_storage_sealed_only"]
    if sealed_only and not given["acme_storage_key"]:
        raise ConfigError(
            "acme_storage_sealed_only: acme_storage_key is not set, so nothing is sealed; set it, or leave this out"
        )
    return sealed_only


def _role(given: Mapping[str, Any]) -> str:
    role = choice(given, "acme_role")
    if role != "standalone" and given["acme_storage"].lower().startswith("memory:"):
        raise ConfigError(
            f"acme_role: a {role} node needs a storage that other nodes reach, and acme_storage is memory:; "
            "use a shared storage, or acme_role=standalone"
        )
    return role
