"""HTTPS to a CA within bounds: how long a request takes, how much a reply is, and that no reply sends it elsewhere.

This module knows requests, urllib3 and sockets; it must not know ACME. The timeouts of requests are for each read from
the socket: a CA that sends one byte of a header each second would hold a thread for hours. So each request has an end
here, which every read of its socket obeys.
"""

import contextlib
import http.cookiejar
import math
import socket
import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

# Seconds to connect and be answered; a pair has one number for each.
type Timeout = float | tuple[float, float]

_CONNECTIONS = 8
# A certificate with a hundred intermediates is a quarter of that. Headers and all that TLS carries are counted; nothing
# is compressed, for we ask for that, and what is so all the same is not unpacked: it may be a thousand times as large.
LARGEST_REPLY = 512 * 1024
_PART = 65_536
_MOST_ADDRESSES, _LEAST_TO_CONNECT = 8, 1.0

# Seconds from the first byte of a reply to its last. A CA thinks before it answers, and not while it does.
_LONGEST_REPLY = 10.0

# When what this thread asks of a CA must have ended (``time.monotonic``), and what may still come of the reply.
_end: ContextVar[float] = ContextVar("end", default=math.inf)
_reply: ContextVar["_Reply"] = ContextVar("reply")


class EndlessReply(requests.RequestException):
    """A reply is larger than any that a CA gives."""


class Unanswered(requests.ReadTimeout):
    """Nothing came of a reply, on a connection that the CA had taken."""


class _TooLarge(Exception):
    """The same where urllib3 reads; it would take an ``OSError`` for a broken connection."""


class _Reply:
    """How many bytes may still come of one reply, and until when."""

    def __init__(self) -> None:
        self.left = LARGEST_REPLY
        self.end = math.inf

    @property
    def has_begun(self) -> bool:
        return self.left < LARGEST_REPLY

    def came(self, count: int) -> None:
        """Count what came. Raises ``_TooLarge``."""
        self.end = min(self.end, time.monotonic() + _LONGEST_REPLY)
        self.left -= count
        if self.left < 0:
            raise _TooLarge


def seconds_of(timeout: Timeout) -> float:
    """Return how long a request may take in all."""
    return sum(timeout) if isinstance(timeout, tuple) else timeout


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """End every request of this thread at the latest so many seconds from now."""
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def is_over() -> bool:
    """Say whether the end that ``within`` set for this thread has come."""
    return time.monotonic() >= _end.get()


class Session(requests.Session):
    """A session for HTTPS alone, which follows no redirect, keeps no cookies, and asks no proxy of the environment.

    Each request ends within its timeout, with ``requests.Timeout`` (``Unanswered`` where nothing came). Raises
    ``EndlessReply``, and what requests raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # HTTPS_PROXY may be this very proxy
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
        self.headers["Accept-Encoding"] = "identity"
        self.adapters.clear()
        self.mount("https://", _Adapter(pool_connections=2, pool_maxsize=_CONNECTIONS))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return nothing: what was signed for one URL is for no other (RFC 8555 section 6.4)."""
        return None


class _Adapter(HTTPAdapter):
    """Reads each reply whole, within bounds: a thread, and memory, would else be the CA's for as long as it sends."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = create_urllib3_context()
        context.sslsocket_class = _Socket
        super().init_poolmanager(*args, **kwargs, ssl_context=context)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        timeout, reply = kwargs["timeout"], _Reply()
        token = _reply.set(reply)
        try:
            with within(seconds_of(timeout)):
                kwargs["timeout"] = _bounded(timeout)
                return self._send(request, *args, **kwargs | {"stream": True})
        except _TooLarge as error:
            raise EndlessReply from error
        except requests.ReadTimeout as error:
            if reply.has_begun:
                raise
            raise Unanswered from error
        finally:
            _reply.reset(token)

    def _send(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(*args, **kwargs)
        try:
            response._content = b"".join(_parts(response.raw))
        except BaseException:
            response.close()
            raise
        response._content_consumed = True  # type: ignore[attr-defined]  # as requests itself notes it
        return response


def _bounded(timeout: Timeout) -> tuple[float, float]:
    """Return the timeouts to connect and to read, none of which goes beyond the end; requests takes no zero."""
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    left = max(_end.get() - time.monotonic(), 0.001)
    return min(connect, left), min(read, left)


class _Connection(urllib3.connection.HTTPSConnection):
    """Sends a request in one piece, and shares the time to connect among all addresses of a host.

    urllib3 writes header and body apart, and each write costs a record of TLS and a system call: a fifth of the CPU of
    a request. And it gives each address the whole time: a host with four, none of which answers, held a thread for
    four times as long; and with the whole given to the first, the next would never be tried.
    """

    _unsent: bytearray | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._unsent = bytearray()
        try:
            super().request(*args, **kwargs)
            whole = bytes(self._unsent)
        finally:
            self._unsent = None
        super().send(whole)

    def send(self, data: Any) -> None:
        if self._unsent is None:
            super().send(data)
        else:
            self._unsent += data

    def _new_conn(self) -> socket.socket:
        whole, host = self.timeout, self._dns_host
        if not isinstance(whole, int | float):
            return super()._new_conn()
        try:
            *others, last = _addresses(host, self.port)
        except OSError:
            return super()._new_conn()  # which says so in urllib3's words
        end = time.monotonic() + whole
        try:
            for tried, self._dns_host in enumerate(others):
                self.timeout = max((end - time.monotonic()) / (len(others) + 1 - tried), _LEAST_TO_CONNECT)
                with contextlib.suppress(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
                    return self._with_timeout(super()._new_conn(), whole)
            self._dns_host, self.timeout = last, max(end - time.monotonic(), _LEAST_TO_CONNECT)
            return self._with_timeout(super()._new_conn(), whole)
        finally:
            self._dns_host, self.timeout = host, whole

    @staticmethod
    def _with_timeout(connected: socket.socket, whole: float) -> socket.socket:
        connected.settimeout(whole)  # for the handshake, which is none of the addresses' matter
        return connected


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system would try them. Raises ``OSError`` where it has none."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))[:_MOST_ADDRESSES]


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Socket(ssl.SSLSocket):
    """A connection whose reads obey the end of the request, however often something arrives before it."""

    def do_handshake(self, block: bool = False) -> None:
        self._obey(_end.get())
        super().do_handshake(block)

    def _obey(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply did not end in time")
        timeout = self.gettimeout()
        if left < math.inf and (timeout is None or timeout > left):
            self.settimeout(left)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        reply = _reply.get()
        self._obey(min(_end.get(), reply.end))
        count = super().recv_into(*args, **kwargs)
        reply.came(count)
        return count


def _parts(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """Yield a reply's body as it comes. Raises what requests raises."""
    try:
        while part := raw.read1(_PART, decode_content=False):
            yield part
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.ReadTimeout from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError from error
