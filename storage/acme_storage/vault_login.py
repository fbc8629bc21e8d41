"""How a store logs in to Vault: five methods, one token shared by all threads, renewed in time.

This module knows Vault's auth methods; it must not know what is stored.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hvac.exceptions import Forbidden, InvalidRequest, Unauthorized, VaultError

from acme_storage.url import StorageUrl

METHODS = ("token", "approle", "kubernetes", "jwt", "cert")
_KUBERNETES_JWT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
# A new login so soon after the last one would be refused too: the policy forbids the call, not the token's age.
_LOGIN_AGAIN_AFTER = 1.0

Payload = Callable[[], dict[str, str]]


def login_of(parsed: StorageUrl) -> "Payload | None":
    """Return a function that makes the body of a login request, None for a given token. Raises ``ValueError``."""
    method = parsed.text("auth") or "token"
    role = parsed.text("role")
    if method not in METHODS:
        raise parsed.wrong(f"auth must be one of {', '.join(METHODS)}")
    if method == "approle":
        role_id, secret_id = _needed(parsed, method, "role_id"), parsed.secret("secret_id")
        return lambda: {"role_id": role_id, **({"secret_id": secret_id} if secret_id else {})}
    if method == "cert":
        return lambda: {"name": role} if role else {}
    if method in ("kubernetes", "jwt"):
        role = _needed(parsed, method, "role")
        default = _KUBERNETES_JWT if method == "kubernetes" else None
        path = parsed.text("jwt_path") or default or _needed(parsed, method, "jwt_path")
        # Read at each login: Kubernetes replaces the file long before its token expires.
        return lambda: {"role": role, "jwt": Path(path).read_text().strip()}
    return None


def _needed(parsed: StorageUrl, method: str, name: str) -> str:
    value = parsed.secret(name)
    if not value:
        raise parsed.wrong(f"auth={method} needs {name}=")
    return value


class Session:
    """Runs calls with a valid token: renewed in time, and replaced once if Vault refuses it."""

    def __init__(self, client: Any, path: str, payload: Payload | None, clock: Callable[[], float] = time.monotonic):
        self._client = client
        self._path = f"/v1/auth/{path}/login"
        self._payload = payload
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_in = float("-inf")
        self._renew_at = float("-inf")

    def run[T](self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, after one new login if Vault refuses the token."""
        self._keep_alive()
        used = self._client.token
        try:
            return call()
        except (Forbidden, Unauthorized):
            if not self._login_instead_of(used):
                raise
        return call()

    def _keep_alive(self) -> None:
        if self._payload and not self._client.token:
            self._login_instead_of(self._client.token)
        elif self._clock() >= self._renew_at and self._lock.acquire(blocking=False):
            try:
                self._renew()
            finally:
                self._lock.release()

    def _renew(self) -> None:
        if self._clock() < self._renew_at:  # another thread was first
            return
        self._renew_at = self._clock() + 60
        # Best effort: a token may not be renewable, or may lack the right; then the call itself shows what is wrong.
        # But a silent server is not asked twice: the caller would wait for both.
        with suppress(VaultError, KeyError, TypeError):
            lookup = self._client.auth.token.lookup_self()["data"]
            if lookup.get("renewable"):
                self._note_lease(self._client.auth.token.renew_self()["auth"])
            elif not lookup.get("ttl"):
                self._renew_at = float("inf")

    def _login_instead_of(self, used: str | None) -> bool:
        """Log in unless another thread just did. False if there is no login, or a new one would not help."""
        if not self._payload:
            return False
        with self._lock:
            if self._client.token and self._client.token != used:
                return True
            if used and self._clock() - self._logged_in < _LOGIN_AGAIN_AFTER:
                return False
            answer = self._post(self._payload())
            self._client.token = answer["auth"]["client_token"]
            self._logged_in = self._clock()
            self._note_lease(answer["auth"])
            return True

    def _post(self, body: dict[str, str]) -> Any:
        try:
            return self._client.adapter.post(self._path, json=body)
        except InvalidRequest as error:  # 400 for a wrong secret_id; the caller takes 400 for a failed comparison
            raise Unauthorized("the login is refused") from error

    def _note_lease(self, auth: dict[str, Any]) -> None:
        seconds = auth.get("lease_duration") or float("inf")
        self._renew_at = self._clock() + seconds / 2
