"""A Consul agent that is its own server: in memory or on disk, with or without ACLs and TLS.

Knows Consul's configuration of 2020 (1.8, Debian's) and its HTTP interface; must not know any client library.
"""

import json
import ssl
import urllib.request
from typing import Any

from tests.servers.base import Server, free_port
from tests.servers.binaries import Program, find
from tests.servers.ca import ThrowawayCA

MANAGEMENT_TOKEN = "11111111-2222-3333-4444-555555555555"


class Consul(Server):
    """Listens at `port`. `acl`: nothing is allowed without a token. `mtls`: clients need a certificate of `ca`.

    `persist`: on disk, so that values survive a kill; it takes 1.5 s to start instead of 0.3.
    """

    name = "consul"

    def __init__(self, *, acl: bool = False, tls: bool = False, mtls: bool = False, persist: bool = False) -> None:
        super().__init__()
        self.port = free_port()
        self.tls = tls or mtls
        self.token = MANAGEMENT_TOKEN if acl else ""
        self._persist = persist
        self.ca = ThrowawayCA(self.folder / "tls")
        self.client = self.ca.issue("client")
        self.context: ssl.SSLContext = self.ca.client_context()
        self.context.load_cert_chain(*self.client)
        (self.folder / "consul.json").write_text(json.dumps(self._configuration(acl, mtls)))

    def _configuration(self, acl: bool, mtls: bool) -> dict[str, Any]:
        ports = {name: free_port() for name in ("server", "serf_lan", "serf_wan")}
        web = {"https": self.port, "http": -1} if self.tls else {"https": -1, "http": self.port}
        identity = self.ca.issue()
        configuration: dict[str, Any] = {
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {**ports, **web, "dns": -1, "grpc": -1},
            "data_dir": str(self.folder / "data"),
            "node_name": "n1",
            "disable_update_check": True,
            "log_level": "warn",
            "leave_on_terminate": False,
            "performance": {"raft_multiplier": 1},
            # The default of 200 requests a second and client is for agents that face many.
            "limits": {"http_max_conns_per_client": 1000},
        }
        if self.tls:
            files = {"ca_file": self.ca.bundle, "cert_file": identity.certificate, "key_file": identity.key}
            configuration |= {name: str(path) for name, path in files.items()}
            configuration |= {"verify_incoming_https": mtls, "verify_incoming_rpc": False, "verify_outgoing": False}
        if acl:  # since 1.11 the key is `initial_management`; 1.8 knows only `master`
            tokens = {"master": MANAGEMENT_TOKEN, "agent": MANAGEMENT_TOKEN}
            configuration["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        if self._persist:
            configuration |= {"server": True, "bootstrap_expect": 1}
        return configuration

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        mode = [] if self._persist else ["-dev"]
        return ["agent", *mode, "-config-file", str(self.folder / "consul.json")]

    def ready(self) -> bool:
        # a leader is elected, and the token works
        done = self.request("PUT", "kv/_ready", "1") is True
        self.request("DELETE", "kv/_ready")
        return done

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Call the HTTP interface with all rights; a body that is no text goes as JSON. Raises OSError."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        scheme = "https" if self.tls else "http"
        headers = {"X-Consul-Token": self.token} if self.token else {}
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{self.port}/v1/{path}", data, headers, method=method)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.context))
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as reply:
            return json.loads(reply.read() or b"null")

    def make_token(self, rules: str) -> str:
        """A token that may do what `rules` (HCL) say and no more."""
        name = f"policy-{len(self.request('GET', 'acl/policies'))}"
        self.request("PUT", "acl/policy", {"Name": name, "Rules": rules})
        token: str = self.request("PUT", "acl/token", {"Policies": [{"Name": name}]})["SecretID"]
        return token
