"""The sanity test of Kong's API: does a challenge reach this proxy as a CA would send it?

This module knows the path of an http-01 challenge (RFC 8555 section 8.3); it must not know any CA. It stores a token of
its own among the challenges, and fetches it by the public name on port 80, as a CA does.
"""

import contextlib
import secrets
import time
from typing import Protocol

import urllib3

from acme_storage import StorageError

from ..core.names import ServerName, is_address, url_host
from ..core.proof import Proof

_PORT = 80
_TIMEOUT = 10
_LONGEST_REPLY = 1_024
_SHOWN = 80
_NOT_RESOLVED, _NOT_CONNECTED = "the name has no address in DNS", "no connection"


class Challenges(Protocol):
    """Where challenges are stored; both methods block and raise ``StorageError``."""

    def put_proof(self, proof: Proof) -> None: ...

    def delete_proof(self, proof: Proof) -> None: ...


def find_problem(challenges: Challenges, host: ServerName, *, port: int = _PORT) -> str | None:
    """Return why a challenge for ``host`` would not be answered here, or None; blocks for seconds.

    Raises ``StorageError``.
    """
    proof = Proof("http-01", secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    challenges.put_proof(proof)
    try:
        return _fetch(host, f"{port}/.well-known/acme-challenge/{proof.location}", proof.value)
    finally:
        with contextlib.suppress(StorageError):  # it expires by itself
            challenges.delete_proof(proof)


def _fetch(host: ServerName, port_and_path: str, proof: str) -> str | None:
    try:
        # urllib3 itself: it ignores HTTP_PROXY, which may be this very proxy, and does not read a whole redirect.
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as pool:
            reply = pool.request(
                "GET", f"http://{url_host(host)}:{port_and_path}", redirect=False, preload_content=False
            )
            text = _read(reply, time.monotonic() + _TIMEOUT).decode("utf-8", "replace")
            reply.close()
    except urllib3.exceptions.NameResolutionError:
        return _NOT_RESOLVED if not is_address(host) else _NOT_CONNECTED  # an IPv6 address on a machine without IPv6
    except urllib3.exceptions.NewConnectionError:  # a subclass of TimeoutError in urllib3
        return _NOT_CONNECTED
    except urllib3.exceptions.TimeoutError:
        return "no answer in time"
    except urllib3.exceptions.HTTPError as error:
        return f"the connection broke off ({type(error).__name__})"
    if reply.status == 200 and text == proof:
        return None
    return f'unexpected response: "{text[:_SHOWN]}", unexpected status code: {reply.status}'


def _read(reply: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """Return the beginning of the reply. Raises urllib3's ``TimeoutError`` if even that comes too slowly."""
    text = b""
    while len(text) < _LONGEST_REPLY and (part := reply.read1(_LONGEST_REPLY, decode_content=True)):
        text += part
        if time.monotonic() > deadline:
            raise urllib3.exceptions.TimeoutError
    return text
