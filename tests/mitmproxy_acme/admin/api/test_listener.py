"""The Unix socket of the admin API: whose file it is, and what becomes of one that a killed process left."""

import os
import socket
import stat
from pathlib import Path

import pytest

from mitmproxy_acme.admin.api.listener import Listener
from mitmproxy_acme.config.admin_settings import AdminSocket
from mitmproxy_acme.core.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short path, even if the tests run in a deep folder."""
    monkeypatch.chdir(tmp_path)
    return "admin.sock"


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_file_is_for_who_may_use_it_and_goes_with_its_process(path: str, mode: int) -> None:
    """It has the mode of the option in spite of the umask; it is removed with the API."""
    before = os.umask(0)
    try:
        listening = Listener(AdminSocket(path, mode))
        with listening.open(), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert stat.S_IMODE(os.stat(path).st_mode) == mode
            listening.remove()
            assert not os.path.exists(path)
            listening.remove()
    finally:
        os.umask(before)


def test_stale_socket_is_taken_over(path: str) -> None:
    """A killed process leaves its file, on which nothing listens."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    with Listener(AdminSocket(path)).open(), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_socket_of_another_process_is_left_alone(path: str) -> None:
    """Also where its queue is full: it is no stale one, and goes on."""
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(path)
        other.listen(0)
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"acme_admin_listen: another process listens at unix:admin\.sock; "):
                Listener(AdminSocket(path)).open()
            waiting.setblocking(False)
            waiting.connect_ex(path)
        assert os.path.exists(path)


def test_file_that_is_no_socket_is_left_alone(path: str) -> None:
    """Nor is a link followed."""
    Path(path).write_text("mine")
    Path("link").symlink_to("nowhere")
    for taken in (path, "link"):
        with pytest.raises(ConfigError, match="exists and is not a socket; choose another path"):
            Listener(AdminSocket(taken)).open()
    assert Path(path).read_text() == "mine"
    assert not Path("nowhere").exists()


def test_folder_that_is_missing(path: str) -> None:
    """The reason is said."""
    with pytest.raises(
        ConfigError, match=r"cannot listen on unix:no/a.sock \(No such file or directory\); choose another"
    ):
        Listener(AdminSocket("no/a.sock")).open()


def test_file_of_another_is_not_removed(path: str) -> None:
    """Where it was replaced meanwhile, the new one stays."""
    listening = Listener(AdminSocket(path))
    with listening.open(), socket.socket(socket.AF_UNIX) as other:
        os.unlink(path)
        Path("in between").touch()  # takes the inode that is free now
        other.bind(path)
        listening.remove()
    assert os.path.exists(path)
