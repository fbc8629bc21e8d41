"""Can a proxy listen on its ports? Asked of real sockets."""

import os
import socket
from pathlib import Path

import pytest

from mitmproxy_acme.diagnostics import preflight
from mitmproxy_acme.diagnostics.listen_check import ListenPort, inspect, is_available
from tests.servers.base import free_port


def sentences(*ports: ListenPort) -> list[str]:
    return [finding.what for finding in inspect(ports)]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_port_in_use_is_said_with_its_flag(kind: socket.SocketKind, host: str) -> None:
    """For TCP and UDP, on one address and on all; the same port of the other protocol is available."""
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", free_port()))  # which nothing else has, for TCP or UDP
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port, is_udp = taken.getsockname()[1], kind is socket.SOCK_DGRAM
        name = "UDP" if is_udp else "TCP"

        assert sentences(ListenPort(host, port, "--https-port", udp=is_udp)) == [
            f"{name} port {port} is in use by another program; stop that one, or choose another port with --https-port"
        ]
        assert is_available(ListenPort(host, port, "", udp=not is_udp))


def test_port_can_be_taken_again_after_the_check() -> None:
    """The check lets go of what it bound."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        assert sentences(ListenPort("", port, ""), ListenPort("", port, "", udp=True)) == []


def test_port_in_time_wait_is_available() -> None:
    """A proxy that has just ended leaves connections in TIME_WAIT, which asyncio listens beside."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    accepted.close()  # first: this end waits
    client.close()
    assert is_available(ListenPort("", port, ""))


def test_address_of_another_machine_is_said() -> None:
    """192.0.2.1 is for documentation (RFC 5737)."""
    (sentence,) = sentences(ListenPort("192.0.2.1", 0, "--https-port"))
    assert "on 192.0.2.1 is not available: Cannot assign requested address; --bind takes an address of this" in sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without rights")
def test_port_below_1024_needs_a_right() -> None:
    """Asked by a child that has given up root, in a kernel that reserves those ports."""
    reserved = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if not reserved:
        pytest.skip("this kernel reserves no ports")
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.setgid(65534)
        os.setuid(65534)
        os.write(writer, "\n".join(sentences(ListenPort("", reserved - 1, "--http-port"))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as said:
        assert "needs a right that this user does not have; run it as root or with CAP_NET_BIND_SERVICE" in said.read()


def test_missing_folder_of_a_unix_socket_is_said(tmp_path: Path) -> None:
    """``check`` warns: at the start something else may create it."""
    settings = {"acme_role": "data", "acme_domains": ("**.test",), "acme_storage": f"file:{tmp_path}"}
    here, missing = tmp_path / "admin.sock", tmp_path / "run" / "admin.sock"

    def warned(path: Path) -> list[str]:
        findings = preflight.inspect(settings | {"acme_admin_listen": f"unix:{path}"}, tmp_path)
        return [finding.what for finding in findings if finding.what.startswith("acme_admin_listen")]

    assert warned(here) == []
    (sentence,) = warned(missing)
    assert sentence.startswith(
        f"acme_admin_listen=unix:{missing}: the folder {missing.parent} does not exist; create it"
    )
