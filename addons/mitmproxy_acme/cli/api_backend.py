"""The certificates of a cluster, through the admin API of a running proxy.

This module knows the resources of the API and their replies (``admin.handlers``); it must not know the commands.
"""

import json
import os
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any, Self
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from ..admin.api.schemas import SCHEMAS
from ..admin.certificate_rows import State
from ..admin.certificate_service import Outcome
from ..admin.documents import Document, timestamp, unix_time
from ..config.admin_settings import AdminAddress, AdminListen, AdminSocket
from ..core.errors import ConfigError, NotFound, RequestFailed
from ..core.names import ServerName
from ..core.thread_pools import run_in_thread
from .backend import Result
from .unix_adapter import UnixAdapter

# Seconds. A proxy on the same machine answers at once; reading its storage takes longer, and its inventory longest.
_CONNECT_WITHIN, _ANSWER_WITHIN, _READ_WITHIN = 1.0, 5.0, 60.0
_ORDER_WITHIN = 240.0  # longer than the longest order
_PAGE = 1_000
_CONNECTIONS = 64
# A stream of events has a sign of life every 15 s; bytes that are read at once.
_SILENT_WITHIN, _LONGEST_PART = 45.0, 65_536
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where a proxy listens, not us
_OF_CERTIFICATE: Collection[str] = SCHEMAS["Certificate"]["required"]
_OF_EVENT: Collection[str] = SCHEMAS["Event"]["required"]
# By these fields the status of a proxy is recognized.
_OF_CA, _OF_FAILURE = ("directory", "state", "error", "retry_at"), ("host", "reason", "retry_at")


class ApiBackend:
    """The certificates of a proxy's cluster; the proxy orders them. ``connect`` makes one."""

    def __init__(self, label: str, base: str, session: requests.Session) -> None:
        self._label = label
        self._base = base
        self._session = session

    @classmethod
    def connect(cls, address: AdminListen, token: str) -> Self | None:
        """Return the backend for the proxy that listens there; None if nothing listens. Blocks for seconds.

        Raises ``ConfigError`` if the proxy refuses the token, this user may not connect, or something else answers.
        """
        session = requests.Session()
        session.trust_env = False  # HTTP_PROXY may be this very proxy, and .netrc is for other servers
        if isinstance(address, AdminSocket):
            _require_access(address)
            label, base = str(address), "http://localhost"
            session.mount("http://", UnixAdapter(address.path, _CONNECTIONS))
        else:
            label = base = f"http://{AdminAddress(_ANYWHERE.get(address.host, address.host), address.port)}"
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
        _require_status(address, reply)
        return cls(label, base, session)

    @property
    def description(self) -> str:
        return f"using the admin API of the proxy at {self._label}"

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
        return self._certificate(await self._document("GET", _path(name), _READ_WITHIN))

    async def issue(self, name: ServerName) -> Result:
        before = await self._known(name)
        reply = await self._send("POST", "/acme", _ORDER_WITHIN, json={"host": name})
        if reply.status_code != requests.codes.created:
            return _failed(name, reply)
        after = await self.get(name)
        is_same = before is not None and before["fingerprint_sha256"] == after["fingerprint_sha256"]
        return Result(name, Outcome.STORED if is_same else Outcome.OBTAINED, after)

    async def renew(self, name: ServerName) -> Result:
        reply = await self._send("POST", f"{_path(name)}/renew", _ORDER_WITHIN, json={})
        if reply.status_code != requests.codes.ok:
            return _failed(name, reply)
        return Result(name, Outcome.RENEWED, self._certificate(self._read(reply)))

    async def revoke(self, name: ServerName, reason: str) -> str:
        done = await self._document("DELETE", _path(name), _ORDER_WITHIN, params={"reason": reason}, json={})
        return str(done.get("message", ""))

    def histories(self) -> Iterator[list[Document]]:
        """Yield the last hundred events of all nodes, the newest first: now, and at each change. Blocks.

        Raises ``RequestFailed`` as soon as the proxy stops answering, ``ConfigError`` if it refuses the token.
        """
        try:
            with self._session.get(
                f"{self._base}/acme/events?only=history",
                stream=True,
                timeout=(_CONNECT_WITHIN, _SILENT_WITHIN),
                allow_redirects=False,
            ) as reply:
                if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
                    raise ConfigError(f"acme_admin_token: the proxy at {self._label} refuses the token")
                if not reply.ok:
                    raise RequestFailed(f"the proxy at {self._label} says {_reason(reply)}")
                for line in reply.iter_lines(_LONGEST_PART):
                    if line.startswith(b"data: "):
                        yield self._history(line.removeprefix(b"data: "))
        except requests.RequestException:
            pass
        raise RequestFailed(f"the proxy at {self._label} does not answer any more")

    def _history(self, text: bytes) -> list[Document]:
        try:
            history = json.loads(text)
        except (ValueError, RecursionError):
            raise self._unknown_form() from None
        if not (_has(history, ("data",)) and _all_have(history["data"], _OF_EVENT)):
            raise self._unknown_form()
        documents: list[Document] = history["data"]
        return documents

    async def close(self) -> None:
        self._session.close()

    async def _known(self, name: ServerName) -> Document | None:
        try:
            return await self.get(name)
        except NotFound:
            return None

    def _certificate(self, reply: Document) -> Document:
        if not (_has(reply, ("data",)) and _has(reply["data"], _OF_CERTIFICATE)):
            raise self._unknown_form()
        document: Document = reply["data"]
        return document

    async def _document(self, method: str, path: str, within: float, **more: Any) -> Document:
        """Return the reply's document. Raises ``NotFound`` and ``RequestFailed``."""
        reply = await self._send(method, path, within, **more)
        if reply.status_code == requests.codes.not_found:
            raise NotFound(_reason(reply))
        if not reply.ok:
            raise RequestFailed(f"the proxy at {self._label} says {_reason(reply)}")
        if reply.status_code == requests.codes.no_content:
            return {}
        return self._read(reply)

    def _read(self, reply: requests.Response) -> Document:
        try:
            document: Document = reply.json()
        except requests.JSONDecodeError:
            raise RequestFailed(f"the proxy at {self._label} answered something that is not JSON") from None
        if not isinstance(document, dict):
            raise self._unknown_form()
        return document

    def _unknown_form(self) -> RequestFailed:
        return RequestFailed(
            f"the proxy at {self._label} answers in a form that this command does not know; use the mitmproxy-acme of "
            "the same version, and connect to it directly"
        )

    async def _send(self, method: str, path: str, within: float, **more: Any) -> requests.Response:
        try:
            return await run_in_thread(
                lambda: self._session.request(
                    method, self._base + path, timeout=(_CONNECT_WITHIN, within), allow_redirects=False, **more
                )
            )
        except requests.Timeout:
            raise RequestFailed(f"the proxy at {self._label} did not answer within {within:.0f} s") from None
        except requests.RequestException:
            raise RequestFailed(f"the proxy at {self._label} does not answer any more; run the command again") from None


def _require_access(address: AdminSocket) -> None:
    """Raise ``ConfigError`` if this user may not use the socket; an error of the storage would mislead."""
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
            "its group use the socket (?mode=0660)"
        )


def _has(document: object, fields: Collection[str]) -> bool:
    """Return whether it is an object with all of these fields."""
    return isinstance(document, dict) and document.keys() >= set(fields)


def _all_have(documents: object, fields: Collection[str]) -> bool:
    return isinstance(documents, list) and all(_has(document, fields) for document in documents)


def _is_status(status: Document) -> bool:
    """Return whether it looks like the status of a proxy, which has at least one CA."""
    return (
        _has(status, ("node", "cas", "failing"))
        and _has(status["node"], ("role",))
        and bool(status["cas"])
        and _all_have(status["cas"], _OF_CA)
        and _all_have(status["failing"], _OF_FAILURE)
    )


def _path(name: str) -> str:
    return f"/acme/certificates/{quote(name, safe='')}"


def _is_refused(error: requests.RequestException) -> bool:
    """Return whether nothing listens there, rather than something that hangs up."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(getattr(cause, "reason", None), NewConnectionError)


def _require_status(address: AdminListen, reply: requests.Response) -> None:
    if reply.status_code in (requests.codes.unauthorized, requests.codes.forbidden) and _is_problem(reply):
        raise ConfigError(f"acme_admin_token: the proxy at {address} refuses the token; give the token of the proxy")
    if _is_problem(reply):
        raise ConfigError(f"acme_admin_listen: the proxy at {address} refuses the request: {_reason(reply)}")
    try:
        status = reply.json()
    except ValueError:
        raise something_else(address) from None
    if not _is_status(status):
        raise something_else(address)


def something_else(address: AdminListen) -> ConfigError:
    return ConfigError(
        f"acme_admin_listen: what answers at {address} is not the admin API of a proxy; give the proxy's address, "
        "or set acme_admin_listen= to use the storage directly"
    )


def _is_problem(reply: requests.Response) -> bool:
    return reply.headers.get("Content-Type", "").startswith("application/problem+json")


def _failed(name: ServerName, reply: requests.Response) -> Result:
    problem, reason = _problem(reply), _reason(reply)
    # A node of the wrong role, or a storage that is down, fails for every name.
    is_general = reply.status_code in (requests.codes.conflict, requests.codes.service_unavailable)
    stop = reason if is_general else str(problem.get("stop") or "")
    return Result.failed(name, str(problem.get("type")), reason, _retry_at(problem), stop)


def _reason(reply: requests.Response) -> str:
    problem = _problem(reply)
    return str(problem.get("reason") or problem.get("message") or f"HTTP {reply.status_code}")


def _retry_at(problem: Document) -> str | None:
    retry_at = problem.get("retry_at")
    try:
        return timestamp(unix_time(retry_at)) if isinstance(retry_at, str) else None
    except (ValueError, OverflowError, OSError):
        return None


def _problem(reply: requests.Response) -> Document:
    """Return the problem document of a reply; empty if it has none."""
    try:
        document = reply.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
