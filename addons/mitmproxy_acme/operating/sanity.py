"""The sanity test of Kong's API: does a challenge arrive here, where a CA would look for it?

This module knows the way of an http-01 challenge (RFC 8555 section 8.3); it must not know any CA. A token of our own is
put where challenges are, and fetched by the public name on port 80, as a CA fetches one.
"""

import contextlib
import secrets
from typing import Protocol

import requests

from acme_storage import StorageError

from ..names import ServerName
from ..proof import Proof

_PORT = 80
_TIMEOUT = 10
_LONGEST_REPLY = 1_024
_SHOWN = 80


class Challenges(Protocol):
    """Where challenges are published; both block and raise ``StorageError``."""

    def publish(self, proof: Proof) -> None: ...

    def withdraw(self, proof: Proof) -> None: ...


def find_problem(challenges: Challenges, host: ServerName, *, port: int = _PORT) -> str | None:
    """Return what keeps a challenge for ``host`` from being answered here, or None; blocks for seconds.

    Raises ``StorageError``.
    """
    proof = Proof("http-01", secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    challenges.publish(proof)
    try:
        return _fetch(f"http://{host}:{port}/.well-known/acme-challenge/{proof.place}", proof.value)
    finally:
        with contextlib.suppress(StorageError):  # it ends by itself
            challenges.withdraw(proof)


def _fetch(url: str, proof: str) -> str | None:
    try:
        with requests.Session() as session:
            session.trust_env = False  # HTTP_PROXY may be this very proxy
            reply = session.get(url, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            text = next(reply.iter_content(_LONGEST_REPLY), b"").decode("utf-8", "replace")
    except requests.RequestException as error:
        return _reason(error)
    if reply.status_code == 200 and text == proof:
        return None
    return f'unexpected response: "{text[:_SHOWN]}", unexpected status code: {reply.status_code}'


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if "resol" in str(error).lower() or "name or service" in str(error).lower():
        return "the name has no address in DNS"
    return "no connection"
