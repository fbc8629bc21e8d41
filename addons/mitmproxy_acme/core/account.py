"""An ACME account as it is stored (RFC 8555 section 7.1.2).

This module knows the record; it must not know storage, or how an account is created.
"""

import json
from dataclasses import dataclass, field
from typing import Self

from .errors import CertificateError
from .versions import reject_newer

_RECORD_VERSION = 1


@dataclass(frozen=True, slots=True)
class Account:
    """An account key and the URL by which the CA knows it.

    ``directory`` is the CA's directory URL. ``uri`` is empty until the CA has answered: the key is stored before it is
    used, so that no account is lost. ``key`` is a private JWK (RFC 7517) as JSON. It is empty for an operator's own
    key, of which only the ``thumbprint`` (RFC 7638) is stored. ``next_key`` is set while a key change is under way.
    ``contact`` is the e-mail address that the CA has, None if unknown. ``eab_kid`` and ``eab_hmac_key`` are the
    external account binding that the CA gave for it, if any.
    """

    directory: str
    thumbprint: str
    uri: str = ""
    key: str = field(default="", repr=False)
    next_key: str = field(default="", repr=False)
    contact: str | None = None
    eab_kid: str = ""
    eab_hmac_key: str = field(default="", repr=False)

    def to_record(self) -> bytes:
        binding = [self.eab_kid, self.eab_hmac_key] if self.eab_kid else []
        secrets = [self.key, self.next_key, *binding]
        fields = {
            "version": _RECORD_VERSION,
            "directory": self.directory,
            "thumbprint": self.thumbprint,
            "uri": self.uri,
            # All secrets share one field, which is sealed as a whole or not at all.
            "key": json.dumps(secrets) if any(secrets[1:]) else self.key,
            "contact": self.contact,
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_record(cls, record: bytes) -> Self:
        """Read what ``to_record`` wrote.

        Raises ``RecordRefused`` if a later release wrote it, ``CertificateError`` for anything else.
        """
        try:
            fields = json.loads(record)
            reject_newer(fields, _RECORD_VERSION, "the account record")
            values = {name: _text(fields[name]) for name in ("directory", "thumbprint", "uri", "key")}
            if values["key"].startswith("["):
                values |= _secrets(json.loads(values["key"]))
            contact = _text(fields["contact"]) if fields.get("contact") is not None else None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CertificateError(f"the account record is broken ({type(error).__name__})") from None
        return cls(**values, contact=contact)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _secrets(values: list[object]) -> dict[str, str]:
    """Return the secrets by name. Raises ``ValueError`` or ``TypeError`` unless ``to_record`` wrote them."""
    key, next_key, *binding = map(_text, values)
    kid, hmac_key = binding or ("", "")
    if key.startswith("[") or (hmac_key and not kid):
        raise ValueError
    return {"key": key, "next_key": next_key, "eab_kid": kid, "eab_hmac_key": hmac_key}
