"""Redis: one server, a primary with replica and sentinels, a cluster. Knows their settings; must not know any key."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.servers.base import Server, free_port
from tests.servers.binaries import Program, find
from tests.servers.ca import ThrowawayCA


class Redis(Server):
    """Listens on `port` (with ``tls`` only over TLS, trusted through `ca`) and on `socket`, and persists its data.

    `settings` are lines of redis.conf, `password` is the default user's.
    """

    name = "redis"

    def __init__(
        self, *settings: str, password: str = "", tls: bool = False, client_certificates: bool = False
    ) -> None:
        super().__init__()
        self._password = password
        self.port = free_port()
        self.socket = self.folder / "redis.sock"
        self.ca = ThrowawayCA(self.folder / "tls") if tls else None
        # appendfsync no: tests kill processes, not machines
        lines = ["bind 127.0.0.1", f"dir {self.folder}", f"unixsocket {self.socket}", 'save ""', "appendonly yes"]
        lines += ["appendfsync no", "repl-diskless-sync-delay 0", *settings]
        if password:
            lines += [f"requirepass {password}"]
        if self.ca:
            identity = self.ca.issue()
            lines += ["port 0", f"tls-port {self.port}", f"tls-ca-cert-file {self.ca.bundle}"]
            lines += [f"tls-cert-file {identity.certificate}", f"tls-key-file {identity.key}"]
            lines += [f"tls-auth-clients {'yes' if client_certificates else 'no'}"]
        else:
            lines += [f"port {self.port}"]
        self.configuration = self.folder / "redis.conf"
        self.configuration.write_text("\n".join(lines) + "\n")

    def program(self) -> Program:
        return find("redis-server")

    def arguments(self) -> list[str]:
        return [str(self.configuration)]

    def ready(self) -> bool:
        """Whether it answers PING: not while it is loading."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self.socket))
            if self._password:
                client.sendall(f"AUTH {self._password}\r\n".encode())
                client.recv(64)
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")

    def ask(self, *words: str) -> str:
        """Return what redis-cli prints for a command, over the socket."""
        return command("-s", str(self.socket), *words)


class Sentinels:
    """A primary, its replica and three sentinels that watch over the set `service`."""

    service = "the-set"

    def __init__(self) -> None:
        self.primary = Redis()
        self.replica = Redis(f"replicaof 127.0.0.1 {self.primary.port}")
        self.sentinels = [Sentinel(self.primary.port, self.service) for _ in range(3)]
        self.ports = [sentinel.port for sentinel in self.sentinels]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in (self.primary, self.replica, *self.sentinels):
                stack.enter_context(server)
            wait(lambda: "master_link_status:up" in self.replica.ask("info", "replication"))
            wait(lambda: all("num-slaves\n1" in self._seen(port) for port in self.ports))
            wait(lambda: all("num-other-sentinels\n2" in self._seen(port) for port in self.ports))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _seen(self, port: int) -> str:
        return command("-p", str(port), "sentinel", "master", self.service)


class Sentinel(Server):
    """One sentinel, which finds the others through the primary."""

    name = "sentinel"

    def __init__(self, primary: int, service: str) -> None:
        super().__init__()
        self.port = free_port()
        self.configuration = self.folder / "sentinel.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]
        lines += [f"sentinel monitor {service} 127.0.0.1 {primary} 2"]
        lines += [f"sentinel down-after-milliseconds {service} 500", f"sentinel failover-timeout {service} 2000"]
        self.configuration.write_text("\n".join(lines) + "\n")

    def program(self) -> Program:
        return find("redis-server")

    def arguments(self) -> list[str]:
        return [str(self.configuration), "--sentinel"]

    def ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as client:
            client.settimeout(1)
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")


class Cluster:
    """Three nodes, each with a third of the slots."""

    def __init__(self) -> None:
        self.nodes = [
            Redis(
                "cluster-enabled yes",
                f"cluster-port {free_port()}",
                "cluster-node-timeout 1000",
                "cluster-require-full-coverage no",
            )
            for _ in range(3)
        ]
        self.ports = [node.port for node in self.nodes]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            addresses = [f"127.0.0.1:{port}" for port in self.ports]
            command("--cluster", "create", *addresses, "--cluster-yes")
            wait(lambda: all("cluster_state:ok" in node.ask("cluster", "info") for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def holder(self, key: str) -> Redis:
        """The node that holds the slot of a Redis key."""
        for node in self.nodes:
            if not node.ask("exists", key).startswith("MOVED"):
                return node
        raise AssertionError(f"no node holds {key}")


def command(*words: str) -> str:
    """Return what redis-cli prints; raise RuntimeError if it fails."""
    program = find("redis-cli")
    environment = {**program.environment, "PATH": str(Path(program.path).parent)}
    done = subprocess.run([program.path, *words], env=environment, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"redis-cli {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not come about in time")
        time.sleep(0.05)
