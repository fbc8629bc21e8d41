"""Caddy, the peer that scripts/bench measures us against.

Knows the Caddyfile; must not know what is measured.
"""

from collections.abc import Sequence

from tests.servers.base import Server, is_open
from tests.servers.binaries import Program, find
from tests.servers.pebble import Pebble


class Caddy(Server):
    """``https_port`` terminates TLS for `names`, on demand for every name when there are none; behind it `upstream`.

    `pebble` must validate on Caddy's ports: give it the same ones. Whether a name may be obtained on demand is asked
    at `upstream`, which says yes to everything.
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
