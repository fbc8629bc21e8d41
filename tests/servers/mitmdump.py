"""mitmdump with the addon: one plain and one TLS port before an upstream.

Knows mitmproxy's command line and the spelling of options; must not import the addon.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.base import Server, fetch, free_port, is_open, udp_sockets
from tests.servers.binaries import Program

_UP = re.compile(r"worker (\d+) is up, process (\d+)")

SCRIPT = Path(__file__).resolve().parents[2] / "addons" / "acme_addon.py"

Option = str | int | bool | Sequence[str]


class Mitmdump(Server):
    """``https_port`` terminates TLS, ``http_port`` answers http-01; both pass on to `upstream`.

    ``dns_port``, if given, is one of the mode ``dns_mode``, which answers over UDP too.

    `options` are mitmproxy's: True and False are spelt for it, and a sequence is set entry by entry.
    """

    name = "mitmdump"
    noise = re.compile(r"(client|server) (dis)?connect|/\.well-known/acme-challenge/|^ +<< ")

    def __init__(
        self,
        upstream: str,
        options: Mapping[str, Option],
        *,
        http_port: int | None = None,
        https_port: int | None = None,
        dns_port: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.http_port = http_port or free_port()
        self.https_port = https_port or free_port()
        self.dns_port, self.dns_mode = dns_port, "dns"
        self.upstream = upstream
        self.options: dict[str, Option] = {"confdir": str(self.folder / "confdir"), **options}
        self.extra_arguments = list(arguments)
        self.environment = {"PYTHONUNBUFFERED": "1"}

    def program(self) -> Program:
        return Program(str(Path(sys.executable).with_name("mitmdump")), {})

    def arguments(self) -> list[str]:
        return ["-s", str(SCRIPT), *self.mitmdump_arguments()]

    def mitmdump_arguments(self) -> list[str]:
        """Return the arguments for its ports and options."""
        modes = [f"reverse:{self.upstream}@127.0.0.1:{port}" for port in (self.https_port, self.http_port)]
        if self.dns_port:
            modes.append(f"{self.dns_mode}@127.0.0.1:{self.dns_port}")
        words = [word for mode in modes for word in ("--mode", mode)]
        return words + set_words(self.options) + self.extra_arguments

    def ready(self) -> bool:
        # a challenge that was never set: answered by the addon itself, so the upstream sees nothing of it
        fetch(f"http://127.0.0.1:{self.http_port}/.well-known/acme-challenge/ready")
        if self.dns_port and not udp_sockets(self.dns_port):
            return False
        # the admin API is last of all
        host, _, port = str(self.options.get("acme_admin_listen", "")).partition(":")
        if host == "unix" and not Path(port).exists():
            return False
        return is_open(self.https_port) and (host != "127.0.0.1" or is_open(int(port)))


class Run(Mitmdump):
    """``mitmproxy-acme run`` instead, with ``workers`` processes; ready when all of them are up."""

    name = "mitmproxy-acme-run"
    workers = 1

    def program(self) -> Program:
        return Program(str(Path(sys.executable).with_name("mitmproxy-acme")), {})

    def arguments(self) -> list[str]:
        return ["run", "--workers", str(self.workers), *self.mitmdump_arguments()]

    def ready(self) -> bool:
        return super().ready() and (self.workers == 1 or len(self.worker_pids()) == self.workers)

    def worker_pids(self) -> dict[int, int]:
        """The processes that reported that they are up, the latest of each worker, by its number."""
        return {int(number): int(pid) for number, pid in _UP.findall(self.log.read_text())}


class Serve(Run):
    """``mitmproxy-acme serve SITES`` instead; without ``has_http`` nothing listens at ``http_port``."""

    name = "mitmproxy-acme-serve"
    has_http = True

    def __init__(
        self, sites: Sequence[str], options: Mapping[str, Option], *, http_port: int, arguments: Sequence[str] = ()
    ) -> None:
        super().__init__("", options, http_port=http_port, arguments=arguments)
        self.sites = list(sites)

    def arguments(self) -> list[str]:
        ports = ["--bind", "127.0.0.1", "--https-port", str(self.https_port)]
        ports += ["--http-port", str(self.http_port) if self.has_http else "off"]
        workers = ["--workers", str(self.workers)] if self.workers > 1 else []
        return ["serve", *self.sites, *ports, *workers, *set_words(self.options), *self.extra_arguments]

    def ready(self) -> bool:
        return super().ready() if self.has_http else is_open(self.https_port)


def set_words(options: Mapping[str, Option]) -> list[str]:
    """Spell options as arguments."""
    return [word for name, value in options.items() for text in _spelt(value) for word in ("--set", f"{name}={text}")]


def _spelt(value: Option) -> Sequence[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [str(value)] if isinstance(value, str | int) else value
