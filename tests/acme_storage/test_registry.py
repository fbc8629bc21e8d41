"""From a URL to a store, or to one sentence that helps."""

import os
import sys
from pathlib import Path

import pytest

from acme_storage import open_storage
from acme_storage.file import Files
from acme_storage.memory import Memory


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:", "/default/acme"),
        ("FILE:", "/default/acme"),
        ("file:/var/lib/acme", "/var/lib/acme"),
        ("file:///var/lib/acme", "/var/lib/acme"),
        ("file:/var/lib/acme/", "/var/lib/acme"),
        ("file:/with%20space/50%25", "/with space/50%"),
        ("file:/with space", "/with space"),
    ],
)
def test_file(url: str, folder: str) -> None:
    """``file:`` is the default folder's ``acme``, and ``file:/path`` or ``file:///path`` that path."""
    store = open_storage(url, default_folder=Path("/default"))
    assert isinstance(store, Files)
    assert store._folder == folder


def test_no_io(tmp_path: Path) -> None:
    """To open a store makes no folder, and neither do reads or deletes of nothing."""
    store = open_storage("file:", default_folder=tmp_path)
    assert store.get("a") is None
    assert store.keys("") == []
    assert not store.swap("a", b"x", b"y")
    store.delete("a")
    assert os.listdir(tmp_path) == []


def test_memory(tmp_path: Path) -> None:
    """``memory:`` and ``memory:NAME`` are stores in memory."""
    assert isinstance(open_storage("memory:", default_folder=tmp_path), Memory)
    assert isinstance(open_storage("memory:test.a-b_1", default_folder=tmp_path), Memory)


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("sqlite:/x.db", "sqlalchemy", "sql"),
        ("postgresql://h/x", "psycopg", "sql"),
        ("redis://h", "redis", "redis"),
        ("redis+cluster://h", "redis", "redis"),
        ("consul://h", "consul", "consul"),
        ("vault://h", "hvac", "vault"),
    ],
)
def test_missing_library(url: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client library that isn't installed is asked for by the extra that brings it, when its URL is used."""
    stores = tuple(f"acme_storage.{store}" for store in ("sql", "redis", "consul", "vault"))
    for module in [name for name in sys.modules if name.startswith(stores)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"pip install 'mitmproxy-acme\[{extra}\]'"):
        open_storage(url, default_folder=Path("/default"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "no scheme; known are .*file:, memory:"),
        ("/var/lib/acme", "no scheme; known are .*file:, memory:.*; write file:/its/path for a folder"),
        ("user:hunter2@host", "scheme user: is unknown; known are .*file:, memory:"),
        ("hunter2@host:80", "no scheme"),
        ("://hunter2", "no scheme"),
        ("etcd://user:hunter2@host/x?password=hunter2", "scheme etcd: is unknown; known are .*file:, memory:"),
        ("file:acme", "absolute path"),
        ("file:./acme", "absolute path"),
        ("file:~/acme", "absolute path"),
        ("file:%2e/acme", "absolute path"),
        ("file:/a%00b", "absolute path"),
        ("file://hunter2@host/acme", "has a host"),
        ("file://", "has a host"),
        ("file:/acme?mode=hunter2", "takes no parameters, but has mode; in a path write %3F"),
        ("file:/acme?a=1&b", "takes no parameters, but has a, b"),
        ("file:/acme?", "takes no parameters, but has a ?"),
        ("file:/acme#x", "must not contain a #; in a path write %23"),
        ("memory:?size=1", "takes no parameters, but has size"),
        ("memory:/x", "takes nothing, or a name"),
        ("memory://", "takes nothing, or a name"),
    ],
)
def test_wrong(url: str, sentence: str) -> None:
    """A wrong URL is refused in one sentence that says what would be right, and shows no password."""
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")) as caught:
        open_storage(url, default_folder=Path("/default"))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
