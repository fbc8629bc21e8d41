"""HTTPS to a CA within limits: the duration of a request, the size of a reply, and no redirects.

This module knows requests and urllib3, and ``deadline`` the limits; it must not know ACME.
"""

import contextlib
import queue
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from enum import Enum, auto
from typing import Any, Self
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from requests.structures import CaseInsensitiveDict

from .deadline import ReplyLimits, Timeout, TooLarge, bounded, current_reply, seconds_of, within
from .trusted_roots import TrustedRoots

_CONNECTIONS = 8
_PART = 65_536
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}
_MOST_ADDRESSES, _LEAST_TO_CONNECT = 8, 1.0


class _Progress(Enum):
    """Which connection the current request has: an idle one, or a new one before or after TLS is established."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()


_progress: ContextVar[_Progress] = ContextVar("progress", default=_Progress.IDLE)


class EndlessReply(requests.RequestException):
    """A reply is larger than any CA's real replies."""


class Unanswered(requests.ReadTimeout):
    """No reply came on a connection that the CA had accepted."""


class Closed(requests.ConnectionError):
    """The connection ended before any part of a reply came."""


class Session:
    """A session for HTTPS only, which follows no redirects, keeps no cookies, and uses no proxy of the environment.

    It is like one of requests, and has its replies and errors, because the acme library expects them. But all that
    requests merges, parses and looks up for each request is always the same, or unwanted here, and took a third of a
    request's CPU (measured). Use it from any thread.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple[str, bool | str], _Pool] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout,
        verify: bool | str = True,
    ) -> requests.Response:
        """Send a request, and return the complete reply; ``verify`` is the path of a PEM file, or True.

        It ends within the timeout, with ``requests.Timeout`` (``Unanswered`` if no reply came). Raises
        ``EndlessReply``, ``Closed``, and what requests raises: ``InvalidSchema`` for a URL that is not HTTPS.
        """
        parts = urlsplit(url)
        if parts.scheme != "https":
            raise requests.exceptions.InvalidSchema(url)
        request = _Request(url, method, data.encode() if data is not None else None, _HEADERS | dict(headers or {}))
        with within(seconds_of(timeout)):
            pool = self._pool(parts.netloc, verify)
            try:
                return request.send(pool, timeout)
            except Closed:
                if not request.may_be_repeated:
                    raise
            pool.close_idle()  # the CA has probably closed the others too
            return request.send(pool, timeout)

    def close(self) -> None:
        """Close idle connections."""
        for pool in self._pools.values():
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pool(self, netloc: str, verify: bool | str) -> "_Pool":
        """Return the connections to a host; if two threads create them, both use the same ones in the end."""
        found = self._pools.get((netloc, verify))
        return found or self._pools.setdefault((netloc, verify), _Pool.to(netloc, verify))


class _Request:
    """One request, which may be sent twice."""

    def __init__(self, url: str, method: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        self._url, self._method, self._body, self._headers = url, method, body, headers
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._reached = _Progress.CONNECTING

    @property
    def may_be_repeated(self) -> bool:
        """Say whether it may be sent once more after ``Closed``.

        If the connection had been idle: servers close those at any time (RFC 9112 section 9.5). If the CA took the
        first one nevertheless, it refuses the second for its nonce. Or if it is idempotent (RFC 9110 section 9.2.2) and
        TLS had been established: a port that resets every connection is asked once.
        """
        if self._reached is _Progress.OPEN:
            return self._method in ("GET", "HEAD")
        return self._reached is _Progress.IDLE

    def send(self, pool: "_Pool", timeout: Timeout) -> requests.Response:
        """Send it, and return the complete reply. Raises what ``Session.request`` raises."""
        reply = ReplyLimits()
        tokens = current_reply.set(reply), _progress.set(_Progress.IDLE)
        try:
            return _response(
                self._url, pool.send(self._method, self._target, self._body, self._headers, bounded(timeout))
            )
        except TooLarge as error:
            raise EndlessReply from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise (requests.ReadTimeout if reply.has_begun else Unanswered) from error
        except urllib3.exceptions.ProtocolError as error:
            raise (requests.ConnectionError if reply.has_begun else Closed)(error) from error
        finally:
            self._reached = _progress.get()
            current_reply.reset(tokens[0])
            _progress.reset(tokens[1])


def _response(url: str, raw: urllib3.BaseHTTPResponse) -> requests.Response:
    """Return a complete reply as requests does: if it were read later, the CA could hold a thread for long."""
    response = requests.Response()
    response.url, response.raw = url, raw
    response.status_code, response.reason = raw.status, raw.reason or ""
    response.headers = CaseInsensitiveDict(raw.headers)
    response.encoding = "utf-8"
    try:
        response._content = b"".join(_parts(raw))
    except BaseException:
        raw.close()
        raise
    return response


class _Connection(urllib3.connection.HTTPSConnection):
    """Sends a request in one piece, and shares the time to connect among all addresses of a host.

    urllib3 writes header and body separately, and each write costs a TLS record and a system call: a fifth of a
    request's CPU. It also gives each address the whole time: a host with four silent addresses held a thread for four
    times as long; and if the first got all the time, the next would never be tried.
    """

    _unsent: bytearray | None = None

    def connect(self) -> None:
        _progress.set(_Progress.CONNECTING)
        super().connect()
        _progress.set(_Progress.OPEN)

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
            return super()._new_conn()  # which raises urllib3's own error
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
        connected.settimeout(whole)  # for the handshake, which does not share the time among addresses
        return connected


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the system's order. Raises ``OSError`` if it has none."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))[:_MOST_ADDRESSES]


class _Pool(urllib3.HTTPSConnectionPool):
    """The connections to one host."""

    ConnectionCls = _Connection

    def __init__(self, host: str, port: int, roots: TrustedRoots) -> None:
        super().__init__(host, port, maxsize=_CONNECTIONS, cert_reqs="CERT_REQUIRED")
        self._roots = roots

    @classmethod
    def to(cls, netloc: str, verify: bool | str) -> Self:
        """Return connections that trust the roots in the PEM file ``verify``; if it is True, those of requests."""
        parts = urlsplit(f"https://{netloc}")
        roots = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
        return cls(parts.hostname or "", parts.port or 443, TrustedRoots(roots))

    def _new_conn(self) -> Any:
        try:
            self.conn_kw["ssl_context"] = self._roots.context()
        except OSError as error:
            raise urllib3.exceptions.SSLError(error) from error
        return super()._new_conn()

    def close_idle(self) -> None:
        """Close the connections that no request uses now."""
        with contextlib.suppress(queue.Empty):
            while self.pool is not None:
                if (idle := self.pool.get(block=False)) is not None:
                    idle.close()

    def send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout: tuple[float, float]
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; the reply's body is not read yet.

        Raises as requests does, or ``ReadTimeoutError`` and ``ProtocolError`` of urllib3.
        """
        connect, read = timeout
        try:
            return self.urlopen(
                method,
                target,
                body,
                headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=connect, read=read),
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError):
            raise
        except urllib3.exceptions.SSLError as error:
            if isinstance(error.args[0], ssl.SSLEOFError) and _progress.get() is _Progress.IDLE:
                raise urllib3.exceptions.ProtocolError("the connection was closed", error) from error
            raise requests.exceptions.SSLError(error) from error
        except urllib3.exceptions.NewConnectionError as error:  # a subclass of ConnectTimeoutError in urllib3
            raise requests.ConnectionError(error) from error
        except urllib3.exceptions.ConnectTimeoutError as error:
            raise requests.ConnectTimeout(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.ConnectionError(error) from error


def _parts(raw: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield a reply's body as it arrives. Raises as requests does, or ``ReadTimeoutError``."""
    try:
        while part := raw.read1(_PART, decode_content=False):
            yield part
    except urllib3.exceptions.ReadTimeoutError:
        raise
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
