"""The admin API at a Unix socket: curl and the command line use it, and no client of the proxy reaches it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.admin import Answer, curl
from tests.end_to_end.conftest import StartProxy
from tests.end_to_end.test_cli import Command
from tests.servers.base import free_port

type FreshName = Callable[[], str]


def test_unix_socket(proxy: StartProxy, fresh_name: FreshName, tmp_path: Path) -> None:
    """Without a token, beside a forward proxy too: the file's mode decides. One that was killed leaves no trouble."""
    path, name = tmp_path / "admin.sock", fresh_name()
    running = proxy(start=False, acme_admin_listen=f"unix:{path}")
    running.extra_arguments += ["--mode", f"regular@127.0.0.1:{free_port()}"]
    running.start()

    def ask(path_of_url: str, *words: str, host: str = "localhost") -> Answer:
        return curl("--unix-socket", str(path), *words, f"http://{host}{path_of_url}")

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    issued = Command(running)("issue", name)
    assert (issued.code, issued.lines[0].split(",")[0]) == (0, f"obtained {name}"), issued.err
    assert f"using the admin API of the proxy at unix:{path}\n" in issued.err
    assert ask(f"/acme/certificates/{name}").document["data"]["host"] == name
    assert ask("/").status == 200
    assert ask("/health", host="evil.test").status == 421
    changed = ask("/acme", "-H", "Origin: https://evil.test", "-H", "Content-Type: application/json", "-d", "{}")
    assert changed.status == 403

    running.kill()
    assert path.exists()
    running.start()
    listed = Command(running)("list", "--json").document["data"]
    assert [document["host"] for document in listed] == [name]

    running.stop()
    assert not path.exists()
