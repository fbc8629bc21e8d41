"""HTTP to a CA: certbot's ``ClientNetwork``, made fit for threads and for a process that lives for years.

This module knows requests, nonces and connections; it must not know orders. What it mends: nonces are lost with error
replies and raced for by threads, badNonce is tried once again only, HTTPS_PROXY would lead a proxy into itself, ten
connections are the most that are kept, an error does not say what the CA's reply was, and a reply may be without end.
"""

import collections
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import josepy as jose
import requests
import urllib3
from acme import client, errors, messages
from requests.adapters import HTTPAdapter

from .. import __version__

_CONNECTIONS = 8
# A chain of a hundred certificates is a tenth of that; and the timeout is for each part of a reply, not for all.
_LARGEST_REPLY, _LONGEST_REPLY = 4 * 2**20, 60.0
_PART = 65_536
_NONCES = 256
_NONCE_LIFE = 600.0  # CAs forget nonces after minutes to hours; a stale one only costs a round trip
_NONCE_TRIES = 30  # of a CA that refuses every second nonce, one request in a thousand million is lost

# Seconds: for a CA that is the only hope; and to connect and to be answered, where another is to be asked instead,
# soon enough for whoever waits in a handshake (15 s).
PATIENT: float | tuple[float, float] = 30.0
BRIEF: float | tuple[float, float] = (3.0, 8.0)

# mitmproxy lets every DEBUG record through to its handlers, and the libraries log each request and reply in full:
# a quarter of the time of an order went there (measured), and the log of a proxy is no place for account traffic.
for _library in ("acme", "urllib3"):
    logging.getLogger(_library).setLevel(logging.INFO)


class EndlessReply(requests.RequestException):
    """A reply is larger, or comes slower, than any that a CA gives."""


class Network(client.ClientNetwork):
    """Signs and sends; every method may be called from any thread. Raises what the acme library raises.

    An error that the CA's reply caused carries it as ``response`` (requests.Response).
    """

    def __init__(
        self, key: jose.JWK, alg: jose.JWASignature, ca_bundle: str, timeout: float | tuple[float, float] = PATIENT
    ) -> None:
        """``timeout`` is in seconds, of which a pair is to connect and to wait for each part of a reply."""
        user_agent = f"mitmproxy-acme/{__version__}"
        # The library hands the timeout on to requests, which takes pairs too.
        super().__init__(key=key, alg=alg, user_agent=user_agent, timeout=timeout)  # type: ignore[arg-type]
        # requests takes a path where the library's annotation says bool.
        self.verify_ssl = ca_bundle or True  # type: ignore[assignment]
        self.session.trust_env = False
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, _Adapter(pool_connections=2, pool_maxsize=_CONNECTIONS))
        # The newest is taken first, so that the old ones rot unused; append and pop of a deque are atomic.
        self._fresh: collections.deque[tuple[float, bytes]] = collections.deque(maxlen=_NONCES)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Sign and send, again with the nonce of the refusal while the CA says badNonce (RFC 8555 section 6.5)."""
        reconnected = False
        for attempt in range(_NONCE_TRIES):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or attempt == _NONCE_TRIES - 1:
                    raise
                self._keep_newest_nonce()
            except requests.ConnectionError as error:
                if reconnected or not _was_idle_connection(error):
                    raise
                reconnected = True
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        response = super()._send_request(method, url, *args, **kwargs)
        if method != "HEAD" and (nonce := self._nonce_of(response)):
            self._fresh.append((time.monotonic(), nonce))
        return response

    def _add_nonce(self, response: requests.Response) -> None:
        """Do nothing: ``_send_request`` took it already, from error replies too."""

    def _get_nonce(self, url: str, new_nonce_url: str) -> Any:
        """Take the newest that is kept; else ask the CA for one, which no other thread can take away."""
        with contextlib.suppress(IndexError):
            taken, nonce = self._fresh.pop()
            if time.monotonic() - taken < _NONCE_LIFE:
                return nonce
            self._fresh.clear()
        asked = self._nonce_of(self._check_response(self.head(new_nonce_url or url)))
        if asked is None:
            raise errors.ClientError("the CA gives no nonces")
        return asked

    def _nonce_of(self, response: requests.Response) -> bytes | None:
        nonce = response.headers.get(self.REPLAY_NONCE_HEADER, "")
        try:
            return jose.decode_b64jose(nonce) or None
        except jose.DeserializationError as error:
            raise errors.BadNonce(nonce, error) from error

    def _keep_newest_nonce(self) -> None:
        """After a CA's restart all the others are stale too."""
        with contextlib.suppress(IndexError):
            newest = self._fresh.pop()
            self._fresh.clear()
            self._fresh.append(newest)

    @classmethod
    def _check_response(cls, response: requests.Response, content_type: str | None = None) -> requests.Response:
        try:
            if response.status_code == 409:  # the library would drop the problem document
                raise messages.Error.from_json(response.json())
            return super()._check_response(response, content_type)
        except (messages.Error, errors.Error) as error:
            error.response = response  # type: ignore[attr-defined]  # for ``problems``, which reads status and headers
            raise


class _Adapter(HTTPAdapter):
    """Reads each reply whole, within bounds: a thread, and memory, would else be the CA's for as long as it sends."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(*args, **kwargs | {"stream": True})
        try:
            response._content = b"".join(_parts(response.raw))
        except BaseException:
            response.close()
            raise
        response._content_consumed = True  # type: ignore[attr-defined]  # as requests itself notes it
        return response


def _parts(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """Yield a reply's body as it comes. Raises what requests raises, and ``EndlessReply``."""
    size, end = 0, time.monotonic() + _LONGEST_REPLY
    try:
        while part := raw.read1(_PART, decode_content=True):
            size += len(part)
            if size > _LARGEST_REPLY or time.monotonic() > end:
                raise EndlessReply
            yield part
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.ReadTimeout from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError from error


def _was_idle_connection(error: requests.ConnectionError) -> bool:
    """Say whether the CA closed a kept connection under the request, rather than being unreachable."""
    return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ProtocolError)
