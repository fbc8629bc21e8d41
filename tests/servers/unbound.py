"""A real recursive resolver with one zone of its own; it asks given servers for some zones below that.

Knows unbound's configuration; must not know what is asked.
"""

from collections.abc import Mapping, Sequence

import dns.message
import dns.query

from tests.servers.base import Server, free_port
from tests.servers.binaries import Program, find


class Unbound(Server):
    """Resolves ``example.test`` by ``records`` (lines of a zone file), and ``zones`` below it by ports of 127.0.0.1.

    A delegation in ``records`` would lead to port 53, so ``zones`` replace delegations. Every name has an address,
    127.0.0.1. It checks what a careful resolver checks: it asks for one more label at a time (RFC 9156), in mixed case.
    """

    name = "unbound"

    def __init__(self, zones: Mapping[str, Sequence[int]], records: Sequence[str] = ()) -> None:
        super().__init__()
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        server = {
            "interface": f"127.0.0.1@{self.port}",
            "username": '""',
            "chroot": '""',
            "directory": f'"{self.folder}"',
            "pidfile": '""',
            "use-syslog": "no",
            "do-ip6": "no",
            "num-threads": "1",
            "verbosity": "1",
            "module-config": '"iterator"',
            "do-not-query-localhost": "no",
            "qname-minimisation": "yes",
            "use-caps-for-id": "yes",
            "harden-below-nxdomain": "yes",
            "infra-host-ttl": "1",
            "local-zone": '"test." nodefault',
        }
        lines = ["server:", *(f"  {name}: {value}" for name, value in server.items())]
        for zone, ports in zones.items():
            lines += ["stub-zone:", f'  name: "{zone}."', *(f"  stub-addr: 127.0.0.1@{port}" for port in ports)]
        self._zone_file = zone_file = self.folder / "example.test.zone"
        soa = ["$ORIGIN example.test.", "@ 60 SOA ns hostmaster 1 60 60 60 60", "@ 60 NS ns", "* 60 A 127.0.0.1"]
        zone_file.write_text("\n".join([*soa, *records]) + "\n")
        lines += ["auth-zone:", '  name: "example.test."', f'  zonefile: "{zone_file}"', "  for-downstream: no"]
        (self.folder / "unbound.conf").write_text("\n".join(lines) + "\n")

    def publish(self, record: str) -> None:
        """Add a line to the zone, and clear the cache."""
        self.stop()
        self._zone_file.write_text(f"{self._zone_file.read_text()}{record}\n")
        self.start()

    def program(self) -> Program:
        return find(self.name)

    def arguments(self) -> list[str]:
        return ["-d", "-p", "-c", str(self.folder / "unbound.conf")]

    def ready(self) -> bool:
        query = dns.message.make_query("localhost.", "A")
        try:
            return bool(dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=1).answer)
        except EOFError:
            return False
