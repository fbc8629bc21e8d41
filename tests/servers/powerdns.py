"""A nameserver with an API that changes its zone. Knows PowerDNS' settings; must not know who changes it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import dns.message
import dns.query

from tests.servers.base import Server, fetch, free_port
from tests.servers.binaries import Program, find


class PowerDns(Server):
    """Serves ``zone`` on ``port`` of 127.0.0.1, and changes it by the API at ``url`` with the ``key``."""

    name = "powerdns"
    key = "key-of-the-api"

    def __init__(self, zone: str) -> None:
        super().__init__()
        self.zone = zone
        self.port = free_port()
        self._database = self.folder / "zones.sqlite"
        api = free_port()
        self.url = f"http://127.0.0.1:{api}"
        settings = {
            "launch": "gsqlite3",
            "gsqlite3-database": self._database,
            "local-address": "127.0.0.1",
            "local-port": self.port,
            "socket-dir": self.folder,
            "api": "yes",
            "api-key": self.key,
            "webserver": "yes",
            "webserver-address": "127.0.0.1",
            "webserver-port": api,
            "cache-ttl": 0,
            "query-cache-ttl": 0,
            "negquery-cache-ttl": 0,
            "zone-cache-refresh-interval": 0,
            "version-string": "anonymous",
        }
        (self.folder / "pdns.conf").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def program(self) -> Program:
        return find("pdns_server")

    def arguments(self) -> list[str]:
        usr = Path(self.program().path).parents[1]
        if not self._database.exists():
            self._make_zone(next(usr.glob("share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")).read_text())
        modules = next(usr.glob("lib/*/pdns"))
        return [f"--config-dir={self.folder}", f"--module-dir={modules}"]

    def _make_zone(self, schema: str) -> None:
        soa = f"ns.{self.zone} hostmaster.{self.zone} 1 60 60 60 0"
        records = [(self.zone, "SOA", soa), (self.zone, "NS", f"ns.{self.zone}"), (f"ns.{self.zone}", "A", "127.0.0.1")]
        with closing(sqlite3.connect(self._database)) as database, database:
            database.executescript(schema)
            database.execute("insert into domains (id, name, type) values (1, ?, 'NATIVE')", (self.zone,))
            database.executemany(
                "insert into records (domain_id, name, type, content, ttl, auth) values (1, ?, ?, ?, 60, 1)", records
            )

    def ready(self) -> bool:
        query = dns.message.make_query(self.zone, "SOA")
        try:
            answers = bool(dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=1).answer)
        except EOFError:
            return False
        fetch(self.url)
        return answers

    def texts(self, name: str) -> list[str]:
        """The TXT values of a name, as it is answered for."""
        query = dns.message.make_query(name, "TXT")
        reply = dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=5)
        return [record.to_text().strip('"') for rrset in reply.answer for record in rrset]
