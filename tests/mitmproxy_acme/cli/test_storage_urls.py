"""URLs of storages on the command line: what of them is shown, and which two are the same storage."""

from contextlib import closing
from pathlib import Path

import pytest

from mitmproxy_acme.cli.storage_urls import open_named, require_different, without_secrets
from mitmproxy_acme.core.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:/var/lib/acme", "file:/var/lib/acme"),
        ("sqlite:/var/acme.db?wal=secret", "sqlite:/var/acme.db"),
        ("redis://me:secret@redis.test:6379/0?password=secret", "redis://redis.test:6379/0"),
        ("vault://token@vault.test/kv", "vault://vault.test/kv"),
        ("redis://redis.test", "redis://redis.test"),
    ],
)
def test_secrets_are_left_out(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("file:/a/one", "file:///a/one", True),
        ("FILE:/a/one", "file:/a/one/", True),
        ("file:", "file:/confdir/acme", True),
        ("file:/a/one", "file:/a/two", False),
        ("redis://redis.test/0", "REDIS://redis.test/0/", True),
        ("redis://redis.test/0", "redis://redis.test/1", False),
    ],
)
def test_same_storage(one: str, other: str, same: bool) -> None:
    for pair in ((one, other), (other, one)):
        if same:
            with pytest.raises(ConfigError, match="source and destination are the same storage"):
                require_different(*pair, Path("/confdir"))
        else:
            require_different(*pair, Path("/confdir"))


def test_argument_is_named_in_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a secret in the URL, and of a network that others read; what is on this machine needs neither."""
    with closing(open_named("--to", "redis://me:secret@192.0.2.1/0", tmp_path)):
        said = capsys.readouterr().err
    assert "--to: a secret is written out in its URL" in said
    assert "--to: the storage is on another machine and is reached in plain text; write rediss:" in said
    assert "acme_storage" not in said
    assert "me:secret" not in said

    with closing(open_named("--to", f"file:{tmp_path}", tmp_path)):
        assert capsys.readouterr().err == ""
