"""Remote: the certificates by way of a running proxy's admin API.

This module knows the API's resources and replies (``api`` answers them); it must not know what is asked for, or why.
"""

import os
import time
from collections.abc import AsyncIterator, Collection
from typing import Any, Self
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

from ..admin.certificate_rows import State
from ..admin.documents import Document, timestamp
from ..admin.schemas import SCHEMAS
from ..config.admin_settings import AdminAddress, AdminListen, AdminSocket
from ..core.errors import ConfigError, NotFound, RequestFailed
from ..core.names import ServerName, name_of
from ..core.thread_pools import in_a_thread
from .backend import STILL_THE_OLD, Outcome, Result, not_found
from .unix_adapter import UnixAdapter

# A proxy on the same machine answers at once; its storage may take a moment, and its inventory more.
_CONNECT_WITHIN, _ANSWER_WITHIN, _READ_WITHIN = 1.0, 5.0, 60.0
_ORDER_WITHIN = 240.0  # longer than the longest order
_PAGE = 1_000
_CONNECTIONS = 64
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where a proxy listens, not us
_OF_CERTIFICATE: Collection[str] = SCHEMAS["Certificate"]["required"]
_OF_CA, _OF_FAILURE = ("directory", "state", "error", "retry_at"), ("host", "reason", "retry_at")  # what is read here
# What the API says before the reason, because Kong does.
_KONGS_WORDS = "failed to update certificate: "


class ApiBackend:
    """The certificates of a proxy's cluster, which the proxy orders. ``connect`` makes one."""

    def __init__(self, named: str, base: str, session: requests.Session, status: Document) -> None:
        self._named = named
        self._base = base
        self._session = session
        self._ordering = status["node"]["role"] != "data"
        self._directories = {ca["directory"] for ca in status["cas"]}

    @classmethod
    def connect(cls, address: AdminListen, token: str) -> Self | None:
        """Return the way to the proxy that listens there; None where nothing does. Blocks for seconds.

        Raises ``ConfigError`` where the token, or this user, is refused, or something else answers.
        """
        session = requests.Session()
        session.trust_env = False  # HTTP_PROXY may be this very proxy, and .netrc has nothing to do here
        if isinstance(address, AdminSocket):
            _require_access(address)
            named, base = str(address), "http://localhost"
            session.mount("http://", UnixAdapter(address.path, _CONNECTIONS))
        else:
            named = base = f"http://{AdminAddress(_ANYWHERE.get(address.host, address.host), address.port)}"
            session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS))
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        try:
            within = (_CONNECT_WITHIN, _ANSWER_WITHIN)
            reply = session.get(f"{base}/acme/status", timeout=within, allow_redirects=False)
        except (requests.ConnectTimeout, requests.ConnectionError) as error:
            if _is_refused(error):
                return None
            raise something_else(address) from None
        except requests.RequestException:
            raise something_else(address) from None
        return cls(named, base, session, _status(address, reply))

    @property
    def description(self) -> str:
        return f"by the admin API of the proxy at {self._named}"

    async def select(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
        offset: str | None = ""
        while offset is not None:
            parameters = {"size": _PAGE, "search": search, "state": [state.value for state in states], "offset": offset}
            page = await self._document("GET", "/acme/certificates", _READ_WITHIN, params=parameters)
            if not (_has(page, ("data", "offset")) and _all_have(page["data"], _OF_CERTIFICATE)):
                raise self._unknown_form()
            for document in page["data"]:
                yield document
            offset = page["offset"]

    async def get(self, name: ServerName) -> Document:
        if (document := await self._known(name)) is not None:
            return document
        raise not_found(name, _failing(await self._status(), name))

    async def issue(self, name: ServerName) -> Result:
        before = await self._known(name)
        reply = await self._send("POST", "/acme", _ORDER_WITHIN, json={"host": name})
        if reply.status_code != requests.codes.created:
            return await self._failed(name, reply)
        after = await self.get(name)
        if self._ordering and after["ca"] not in self._directories:
            return await self._failed(name, None)
        same = before is not None and before["fingerprint_sha256"] == after["fingerprint_sha256"]
        return Result(name, Outcome.STORED if same else Outcome.OBTAINED, after)

    async def renew(self, name: ServerName) -> Result:
        reply = await self._send("POST", f"{_path(name)}/renew", _ORDER_WITHIN, json={})
        if reply.status_code != requests.codes.ok:
            return await self._failed(name, reply)
        return Result(name, Outcome.RENEWED, self._certificate(self._read(reply)))

    async def revoke(self, name: ServerName, reason: str) -> str:
        done = await self._document("DELETE", _path(name), _ORDER_WITHIN, params={"reason": reason}, json={})
        return str(done.get("message", ""))

    async def close(self) -> None:
        self._session.close()

    async def _known(self, name: ServerName) -> Document | None:
        try:
            return self._certificate(await self._document("GET", _path(name), _READ_WITHIN))
        except NotFound:
            return None

    async def _status(self) -> Document:
        status = await self._document("GET", "/acme/status", _ANSWER_WITHIN)
        if not _is_status(status):
            raise self._unknown_form()
        return status

    def _certificate(self, reply: Document) -> Document:
        if not (_has(reply, ("data",)) and _has(reply["data"], _OF_CERTIFICATE)):
            raise self._unknown_form()
        document: Document = reply["data"]
        return document

    async def _failed(self, name: ServerName, reply: requests.Response | None) -> Result:
        """Say why, as the reply and the proxy's state tell."""
        reason = _message(reply).removeprefix(_KONGS_WORDS) if reply is not None else STILL_THE_OLD
        code = reply.status_code if reply is not None else requests.codes.server_error
        retry_at, stop = _retry_at(reply), ""
        if code in (requests.codes.conflict, requests.codes.service_unavailable):  # the node, or its storage
            stop = reason
        elif code >= requests.codes.server_error:
            status = await self._status()
            failing = _failing(status, name)
            if failing is not None and (reply is None or retry_at is None):
                retry_at = failing["retry_at"]
                reason = failing["reason"] if reply is None else reason
            whole = _stopped(status)
            stop = whole["error"] if whole else ""
            retry_at = whole["retry_at"] if whole else retry_at
        # The API tells an error's words alone, among them the CA's own for its type (RFC 8555 section 6.7).
        return Result(
            name,
            Outcome.FAILED,
            reason=reason,
            retry_at=retry_at,
            limited="rateLimited" in reason or " are used up at " in reason,
            unvalidated="could not validate" in reason,
            stop=stop,
        )

    async def _document(self, method: str, path: str, within: float, **more: Any) -> Document:
        """Return the reply's document. Raises ``NotFound`` and ``RequestFailed``."""
        reply = await self._send(method, path, within, **more)
        if reply.status_code == requests.codes.not_found:
            raise NotFound(_message(reply))
        if not reply.ok:
            raise RequestFailed(f"the proxy at {self._named} says {_message(reply)}")
        if reply.status_code == requests.codes.no_content:
            return {}
        return self._read(reply)

    def _read(self, reply: requests.Response) -> Document:
        try:
            document: Document = reply.json()
        except requests.JSONDecodeError:
            raise RequestFailed(f"the proxy at {self._named} answered something that is not JSON") from None
        if not isinstance(document, dict):
            raise self._unknown_form()
        return document

    def _unknown_form(self) -> RequestFailed:
        return RequestFailed(
            f"the proxy at {self._named} answers in another form than this command knows; use the mitmproxy-acme that "
            "came with it, and ask it without anything in between"
        )

    async def _send(self, method: str, path: str, within: float, **more: Any) -> requests.Response:
        try:
            return await in_a_thread(
                lambda: self._session.request(
                    method, self._base + path, timeout=(_CONNECT_WITHIN, within), allow_redirects=False, **more
                )
            )
        except requests.Timeout:
            raise RequestFailed(f"the proxy at {self._named} did not answer within {within:.0f} s") from None
        except requests.RequestException:
            raise RequestFailed(f"the proxy at {self._named} does not answer any more; run this again") from None


def _require_access(address: AdminSocket) -> None:
    """Raise ``ConfigError`` where this user may not use the socket: what then happened would be about the storage."""
    try:
        os.stat(address.path)
        allowed = os.access(address.path, os.W_OK)
    except PermissionError:
        allowed = False
    except OSError:
        return
    if not allowed:
        raise ConfigError(
            f"acme_admin_listen: this user may not use {address}; run the command as the user of the proxy, or let "
            "its group use it (?mode=0660)"
        )


def _has(document: object, fields: Collection[str]) -> bool:
    """Say whether it is an object with all of these fields."""
    return isinstance(document, dict) and document.keys() >= set(fields)


def _all_have(documents: object, fields: Collection[str]) -> bool:
    return isinstance(documents, list) and all(_has(document, fields) for document in documents)


def _is_status(status: Document) -> bool:
    """Say whether it has what is read of it here; a proxy has a CA at least."""
    return (
        _has(status, ("node", "cas", "failing"))
        and _has(status["node"], ("role",))
        and bool(status["cas"])
        and _all_have(status["cas"], _OF_CA)
        and _all_have(status["failing"], _OF_FAILURE)
    )


def _failing(status: Document, name: ServerName) -> Document | None:
    """Return why there is none, as far as the status lists it."""
    return next((known for known in status["failing"] if known["host"] == name_of(name)), None)


def _stopped(status: Document) -> Document | None:
    """Return the CA that is asked again first, where each of them is left alone."""
    standing = [ca for ca in status["cas"] if ca["state"] != "ok"]
    return min(standing, key=lambda ca: str(ca["retry_at"])) if len(standing) == len(status["cas"]) else None


def _path(name: str) -> str:
    return f"/acme/certificates/{quote(name, safe='')}"


def _is_refused(error: requests.RequestException) -> bool:
    """Say whether nothing listens there, rather than something that hangs up."""
    return isinstance(error, requests.ConnectTimeout) or "Failed to establish a new connection" in str(error)


def _status(address: AdminListen, reply: requests.Response) -> Document:
    if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden) and _is_problem(reply):
        raise ConfigError(
            f"acme_admin_token: the proxy at {address} refuses it; give the one that the proxy was started with"
        )
    if _is_problem(reply):
        raise ConfigError(f"acme_admin_listen: the proxy at {address} refuses to answer: {_message(reply)}")
    try:
        status: Document = reply.json()
    except ValueError:
        raise something_else(address) from None
    if not _is_status(status):
        raise something_else(address)
    return status


def something_else(address: AdminListen) -> ConfigError:
    return ConfigError(
        f"acme_admin_listen: what answers at {address} is not the admin API of a proxy; give the proxy's address, "
        "or set acme_admin_listen= to work on the storage itself"
    )


def _is_problem(reply: requests.Response) -> bool:
    return reply.headers.get("Content-Type", "").startswith("application/problem+json")


def _message(reply: requests.Response) -> str:
    try:
        return str(reply.json()["message"])
    except (ValueError, TypeError, KeyError):
        return f"HTTP {reply.status_code}"


def _retry_at(reply: requests.Response | None) -> str | None:
    seconds = reply.headers.get("Retry-After", "") if reply is not None else ""
    return timestamp(time.time() + int(seconds)) if seconds.isdecimal() else None
