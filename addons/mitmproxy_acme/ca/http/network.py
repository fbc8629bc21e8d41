"""HTTP to a CA: certbot's ``ClientNetwork``, adapted to threads and to a process that runs for years.

This module knows requests, nonces and signatures; it must not know orders. It fixes these problems: nonces get lost
with error replies, threads race for them, badNonce is only retried once, a redirect takes a signed request elsewhere, a
URL in a reply may lead to any server, an error does not carry the CA's reply. ``transport`` fixes more.
"""

import collections
import contextlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import josepy as jose
import requests
from acme import client, errors, messages

from ... import __version__
from .allowed_hosts import AllowedHosts
from .ca_clock import CaClock
from .deadline import Timeout, is_over, seconds_of, within
from .transport import Session, Unanswered

_NONCES = 256
_NONCE_LIFE = 600.0  # seconds; CAs forget nonces after minutes to hours, and a stale one only costs a round trip
_NONCE_TRIES = 30  # if a CA refuses every second nonce, one request in a thousand million fails
_LONGEST_NONCE = 1_000  # the longest of any known CA: 64

# Seconds. For a CA without a substitute; and, if another CA can be asked instead, to connect and for the reply, soon
# enough for a client that waits in a handshake (15 s).
PATIENT: Timeout = 30.0
BRIEF: Timeout = (3.0, 8.0)
# To find out whether the CA answers at all, on a second connection: short, because the same client still waits.
_SECOND_CONNECTION: Timeout = (1.5, 1.5)

# For requests that can be repeated at once: a visitor waits for 15 s.
_FIRST_TRY: Timeout = (3.0, 4.0)

# mitmproxy passes every DEBUG record to its handlers, and the libraries log each request and reply in full: that took a
# quarter of the time of an order (measured), and account traffic does not belong in a proxy's log.
for _library in ("acme", "urllib3"):
    logging.getLogger(_library).setLevel(logging.INFO)
# It logs an unparsable header in full, with a traceback: half a megabyte chosen by the CA.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class Ignored(requests.RequestException):
    """The CA did not answer this request, twice, though it answers others."""


class Redirected(errors.ClientError):
    """A reply redirects us to another URL, ``location``, which is not followed."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(response)
        self.reply = response
        self.location: str = response.headers.get("Location", "")


class Network(client.ClientNetwork):
    """Signs and sends requests, only to the CA of ``directory_url``; every method may be called from any thread.

    Raises what the acme library raises, and, before anything is sent, ``UrlRefused`` for a URL at a host that the
    directory does not name. An error caused by a reply has it as ``response`` (requests.Response).
    """

    def __init__(
        self,
        key: jose.JWK,
        alg: jose.JWASignature,
        ca_bundle: str,
        timeout: Timeout = PATIENT,
        *,
        directory_url: str,
    ) -> None:
        """``timeout`` is in seconds, for a whole request with all its tries; a pair is to connect, and for the reply.

        Raises ``UrlRefused``.
        """
        user_agent = f"mitmproxy-acme/{__version__}"
        # The library passes the timeout on to requests, which accepts pairs too.
        super().__init__(key=key, alg=alg, user_agent=user_agent, timeout=timeout)  # type: ignore[arg-type]
        # requests accepts a path although the library's annotation says bool.
        self.verify_ssl = ca_bundle or True  # type: ignore[assignment]
        self.session = Session()  # type: ignore[assignment]  # it has what the library uses of requests' session
        self.clock = CaClock()
        self._origins = AllowedHosts(directory_url)
        self._longest = seconds_of(timeout)
        # The newest is used first, so that old ones expire unused; append and pop of a deque are atomic.
        self._fresh: collections.deque[tuple[float, bytes]] = collections.deque(maxlen=_NONCES)

    def allow(self, directory: Mapping[str, object]) -> None:
        """Allow the hosts of the directory's endpoints too. Raises ``UrlRefused`` unless all are HTTPS URLs."""
        self._origins.allow(directory)

    def require(self, *urls: object) -> None:
        """Raise ``UrlRefused`` for a URL that must not be requested."""
        self._origins.require(*urls)

    def among(self, urls: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``urls`` that may be requested."""
        return self._origins.among(urls)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Sign and send; once more if no reply came, though the CA answers on another connection.

        One lost request (a server that is taken out of service, a load balancer) must not count as an outage of the CA.
        The requests of an order can be sent twice: if the first one was not lost, the second finds its effect. Raises
        ``Ignored`` if there is no reply to the second one either.
        """
        url, message = args[:2]
        self.require(url)  # before it is signed
        # All orders wait for the account. Its key identifies it: the second request finds what the first may have
        # created.
        if isinstance(message, messages.NewRegistration) and seconds_of(_FIRST_TRY) < self._longest:
            with contextlib.suppress(Unanswered, requests.ConnectTimeout):
                return self._post_with_nonces(*args, **kwargs, timeout=_FIRST_TRY)
        try:
            return self._post_with_nonces(*args, **kwargs)
        except Unanswered:
            if not self._answers(kwargs.get("new_nonce_url") or url):
                raise
        try:
            return self._post_with_nonces(*args, **kwargs)
        except Unanswered as error:
            raise Ignored from error

    def _answers(self, url: str) -> bool:
        """Say whether the CA answers anything at all on a new connection."""
        with contextlib.suppress(requests.RequestException), Session() as other:
            other.request("HEAD", url, verify=self.verify_ssl, timeout=_SECOND_CONNECTION)
            return True
        return False

    def _post_with_nonces(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Sign and send; while the CA says badNonce, again with the nonce of its reply (RFC 8555 section 6.5)."""
        with within(self._longest):
            for attempt in range(_NONCE_TRIES):
                try:
                    return self._post_once(*args, **kwargs)
                except messages.Error as error:
                    if error.code != "badNonce" or attempt == _NONCE_TRIES - 1 or is_over():
                        raise
                    self._keep_newest_nonce()
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_request(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        self.require(url)
        response = self._send_with_retry(method, url, **kwargs)
        if method != "HEAD" and (nonce := self._nonce_of(response)):
            self._fresh.append((time.monotonic(), nonce))
        return response

    def _send_with_retry(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        """Send; a request that changes nothing (directory, nonce) is soon repeated on another connection.

        All orders wait for the first fetch of the directory: one lost request must not fail them all.
        """
        if method in ("GET", "HEAD") and seconds_of(_FIRST_TRY) < self._longest:
            with contextlib.suppress(Unanswered, requests.ConnectTimeout):
                return self._send(method, url, **kwargs | {"timeout": _FIRST_TRY})
        return self._send(method, url, **kwargs)

    def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout | None = None,
        data: str | None = None,
    ) -> requests.Response:
        """Send as the library does, which would also format each reply as text, for log lines that are dropped."""
        response = self.session.request(
            method,
            url,
            headers={"User-Agent": self.user_agent, **(headers or {})},
            timeout=timeout or self._default_timeout,
            verify=self.verify_ssl,
            data=data,
        )
        self.clock.hear(response.headers)
        return response

    def _wrap_in_jws(self, obj: jose.JSONDeSerializable | None, nonce: Any, url: str) -> str:
        """Return a request's body: a flattened JWS (RFC 7515 section 7.2.2) with the header of RFC 8555 section 6.2.

        josepy would create a dozen objects, and check what is known here: four times the CPU of signing.
        """
        assert self.key is not None  # noqa: S101  # narrows: it is one of our arguments
        payload = obj.json_dumps().encode() if obj is not None else b""
        header = {"alg": self.alg.name, "nonce": jose.encode_b64jose(nonce), "url": url}
        signer = {"kid": self.account.uri} if self.account is not None else {"jwk": self.key.public_key().to_json()}
        protected = jose.encode_b64jose(json.dumps(header | signer).encode())
        encoded = jose.encode_b64jose(payload)
        signature = self.alg.sign(self.key.key, f"{protected}.{encoded}".encode())
        return json.dumps({"protected": protected, "payload": encoded, "signature": jose.encode_b64jose(signature)})

    def _add_nonce(self, response: requests.Response) -> None:
        """Do nothing: ``_send_request`` has taken the nonce already, from error replies too."""

    def _get_nonce(self, url: str, new_nonce_url: str) -> Any:
        """Use the newest stored nonce; else ask the CA for one, which no other thread can take."""
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
        """Return the reply's nonce; None for an invalid one, which must be ignored (RFC 8555 section 6.5.1)."""
        nonce = response.headers.get(self.REPLAY_NONCE_HEADER, "")
        if len(nonce) > _LONGEST_NONCE:
            return None
        try:
            return jose.decode_b64jose(nonce) or None
        except jose.DeserializationError:
            return None

    def _keep_newest_nonce(self) -> None:
        """Drop all nonces but the newest: after a CA's restart the others are stale too."""
        with contextlib.suppress(IndexError):
            newest = self._fresh.pop()
            self._fresh.clear()
            self._fresh.append(newest)

    @classmethod
    def _check_response(cls, response: requests.Response, content_type: str | None = None) -> requests.Response:
        try:
            if (
                300 <= response.status_code < 400
            ):  # the library would accept this, and any other status that is no error
                raise Redirected(response)
            if not 200 <= response.status_code < 600:
                raise errors.ClientError(response)
            if response.status_code == 409:  # the library would drop the problem document
                raise messages.Error.from_json(response.json())
            return super()._check_response(response, content_type)
        except (messages.Error, errors.Error) as error:
            error.response = response  # type: ignore[attr-defined]  # for ``problems``, which reads status and headers
            raise
