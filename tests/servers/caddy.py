"""Caddy: the peer that scripts/bench compares us with, and an ACME server with the code of step-ca.

Knows the Caddyfile; must not know what is measured, or our addon.
"""

import json
import ssl
from collections import Counter
from collections.abc import Sequence

from tests.servers.base import Server, fetch, free_port, is_open
from tests.servers.binaries import Program, find
from tests.servers.ca import ThrowawayCA
from tests.servers.pebble import Pebble


class Caddy(Server):
    """``https_port`` terminates TLS for `names`, or on demand for every name if there are none; behind it is
    `upstream`.

    `pebble` must validate on Caddy's ports: give it the same ones. `upstream` is asked whether a name may be obtained
    on demand, and always says yes.
    """

    name = "caddy"

    def __init__(self, upstream: str, pebble: Pebble, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.http_port = pebble.http_port
        self.https_port = pebble.tls_port
        self.environment = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / "data")}
        site = f"{', '.join(names)} {{" if names else "https:// {\n    tls {\n        on_demand\n    }"
        (self.folder / "Caddyfile").write_text(f"""{{
    admin off
    persist_config off
    skip_install_trust
    default_bind 127.0.0.1
    http_port {self.http_port}
    https_port {self.https_port}
    email me@example.com
    acme_ca {pebble.directory}
    acme_ca_root {pebble.ca_bundle}
    on_demand_tls {{
        ask {upstream}/ask
    }}
}}
{site}
    reverse_proxy {upstream}
}}
""")

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        return ["run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]

    def ready(self) -> bool:
        return is_open(self.https_port)


class CaddyCa(Server):
    """An ACME CA at `directory` (`acme_server`), whose own HTTPS is trusted through `ca_bundle`.

    http_port   where http-01 validates whatever name or public address: it asks there as at an HTTP proxy, so that port
                80 and a resolver are not needed. tls-alpn-01 is validated at port 443, by the system's resolver
    dns_port    the nameserver that is asked for TXT records; a free port unless given
    """

    name = "caddy"

    def __init__(self, *, http_port: int | None = None, dns_port: int | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.directory = f"https://localhost:{self.port}/acme/local/directory"
        self.http_port, self.dns_port = http_port or free_port(), dns_port or free_port()
        own = ThrowawayCA(self.folder / "tls")
        self.ca_bundle = own.bundle
        self.context: ssl.SSLContext = own.client_context()
        identity = own.issue()
        folder, proxy = str(self.folder), f"http://127.0.0.1:{self.http_port}"
        self.environment = {"HOME": folder, "XDG_DATA_HOME": folder, "HTTP_PROXY": proxy, "NO_PROXY": ""}
        (self.folder / "Caddyfile").write_text(f"""{{
    admin off
    persist_config off
    skip_install_trust
    auto_https off
    default_bind 127.0.0.1
    storage file_system {self.folder / "data"}
    pki {{
        ca local {{
            name "Caddy"
        }}
    }}
}}
https://localhost:{self.port} {{
    log
    tls {identity.certificate} {identity.key}
    acme_server {{
        lifetime 24h
        resolvers 127.0.0.1:{self.dns_port}
    }}
}}
""")

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        return ["run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]

    def ready(self) -> bool:
        return fetch(self.directory, context=self.context).status == 200

    def root(self) -> str:
        """The root of what it issues, as PEM."""
        return (self.folder / "data/pki/authorities/local/root.crt").read_text()

    def asked(self) -> Counter[str]:
        """How often it was asked for each resource, since it was ready: "new-order", "authz", "challenge", …"""
        lines = (json.loads(line) for line in self.log_text().splitlines() if '"handled request"' in line)
        return Counter(line["request"]["uri"].split("/")[3] for line in lines)
