"""The sanity test of Kong's API: does a challenge arrive here, where a CA would look for it?

This module knows the way of an http-01 challenge (RFC 8555 section 8.3); it must not know any CA. A token of our own is
put where challenges are, and fetched by the public name on port 80, as a CA fetches one.
"""

import contextlib
import secrets
import time
from typing import Protocol

import requests
import urllib3

from acme_storage import StorageError

from ..names import ServerName

_PORT = 80
_TIMEOUT = 10
_LONGEST_REPLY = 1_024
_SHOWN = 80


class Challenges(Protocol):
    """Where challenges are published; both block and raise ``StorageError``."""

    def publish(self, token: str, key_authorization: str) -> None: ...

    def withdraw(self, token: str) -> None: ...


def find_problem(challenges: Challenges, host: ServerName, *, port: int = _PORT) -> str | None:
    """Return what keeps a challenge for ``host`` from being answered here, or None; blocks for seconds.

    Raises ``StorageError``.
    """
    token, proof = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    challenges.publish(token, proof)
    try:
        return _fetch(f"http://{host}:{port}/.well-known/acme-challenge/{token}", proof)
    finally:
        with contextlib.suppress(StorageError):  # it ends by itself
            challenges.withdraw(token)


def _fetch(url: str, proof: str) -> str | None:
    try:
        with requests.Session() as session:
            session.trust_env = False  # HTTP_PROXY may be this very proxy
            reply = session.get(url, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            text = _read(reply, time.monotonic() + _TIMEOUT).decode("utf-8", "replace")
    except requests.RequestException as error:
        return _reason(error)
    if reply.status_code == 200 and text == proof:
        return None
    return f'unexpected response: "{text[:_SHOWN]}", unexpected status code: {reply.status_code}'


def _read(reply: requests.Response, deadline: float) -> bytes:
    """Return how the reply begins. Raises ``requests.Timeout`` where that comes too slowly, drop by drop."""
    text = b""
    try:
        while len(text) < _LONGEST_REPLY and (part := reply.raw.read1(_LONGEST_REPLY, decode_content=True)):
            text += part
            if time.monotonic() > deadline:
                raise requests.Timeout
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError from error
    return text


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if "resol" in str(error).lower() or "name or service" in str(error).lower():
        return "the name has no address in DNS"
    return "no connection"
