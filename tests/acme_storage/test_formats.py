"""What an earlier release has written is read: bytes, fields and paths as they are in storages of today.

A test that writes and reads by the same code does not notice a change of both.
"""

from math import inf
from typing import Any

import pytest

from acme_storage import consul_record, file_layout, vault_record


@pytest.mark.parametrize(
    ("record", "written"),
    [
        (
            file_layout.Record(b"value", inf),
            "61636d65017ff000000000000000000005b0802405ca8cd1306b6202988c6023c876616c7565",
        ),
        (
            file_layout.Record(b"even", inf),
            "61636d65017ff000000000000000000004d56ba0f652ca78bc6c8e328b4fc155ef6576656e00",
        ),
        (
            file_layout.Record(b"value", 1_800_000_000.5),
            "61636d650141dad2748020000000000005a3cf3aeb9db0409a89a66d9737bb72d376616c756500",
        ),
    ],
)
def test_record_in_a_file(record: file_layout.Record, written: str) -> None:
    """At the key ``a/b``."""
    assert file_layout.pack("a/b", record).hex() == written
    assert file_layout.unpack("a/b", bytes.fromhex(written)) == record


def test_record_of_another_format_is_said_to_be_one() -> None:
    """And is not taken for what a power cut left."""
    data = bytearray(file_layout.pack("a", file_layout.Record(b"x", 1_800_000_000.0)))
    data[4] = 2
    with pytest.raises(ValueError, match=r"^has format 2, and this program knows only format 1$"):
        file_layout.unpack("a", bytes(data))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.c~d:e*@=+", "a/b.c%7Ed%3Ae%2A%40%3D%2B=v"),
        (f"{'x' * 83}/y", f"{'x' * 83}/y=v"),
        (f"{'x' * 84}/y", f"{'x' * 84}=c/=/y=v"),
        (f"{'x' * 100}/y", f"{'x' * 84}=c/{'x' * 16}/y=v"),
        ("x" * 84, f"{'x' * 84}=c/=v"),
    ],
)
def test_path_of_a_file(key: str, path: str) -> None:
    assert file_layout.path_of(key) == path


def test_record_in_consul() -> None:
    """At the key ``a/b``, expiring at a second, with the mark of its write."""
    written = bytes.fromhex("61636d313132333435363738c2cb33482e5431a076616c7565")
    assert consul_record.pack("a/b", b"value", 1_800_000_000, b"12345678") == written
    item = {"Value": written, "Flags": 1_800_000_000, "ModifyIndex": 7}
    assert consul_record.unpack("a/b", item) == consul_record.Record(b"value", 1_800_000_000, 7, b"12345678")


@pytest.mark.parametrize(
    "change",
    [{"Value": b""}, {"Value": None}, {"Value": b"acm1" + bytes(21)}, {"Flags": 1_800_000_001}, {"key": "a/c"}],
)
def test_value_in_consul_that_we_have_not_written_is_not_ours(change: dict[str, Any]) -> None:
    """Nor one that was copied to another key, or whose end was changed; its index is kept, to replace just that."""
    written = consul_record.pack("a/b", b"value", 1_800_000_000, b"12345678")
    item = {"Value": written, "Flags": 1_800_000_000, "ModifyIndex": 7, "key": "a/b"} | change
    assert consul_record.unpack(str(item["key"]), item) == consul_record.Record(None, 0, 7)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_value_in_consul_has_a_bound(size: int) -> None:
    written = consul_record.pack("a", b"x" * size, 0, b"12345678")
    found = consul_record.unpack("a", {"Value": written, "Flags": 0, "ModifyIndex": 1})
    assert (found.value is not None) is (size == 65_536)


def test_record_in_vault() -> None:
    """A value, and one that is being removed."""
    value = {"value": "dmFsdWU=", "expires": 5, "unique": "mark", "removed": 0}
    assert vault_record.pack(b"value", 5, "mark") == value
    assert vault_record.unpack(3, value) == vault_record.Record(3, b"value", 5, "mark")
    removed = {"value": None, "expires": 0, "unique": "mark", "removed": 7}
    assert vault_record.pack_removed(7, "mark") == removed
    assert vault_record.unpack(4, removed) == vault_record.Record(4, None, 0, "mark", 7)


@pytest.mark.parametrize(
    "change", [{"value": "?"}, {"value": None}, {"removed": "soon"}, {"expires": None}, {"value": "QQ==" * 65_537}]
)
def test_fields_in_vault_that_we_have_not_written_are_foreign(change: dict[str, Any]) -> None:
    """Whatever another program put there."""
    fields = vault_record.pack(b"value", 5, "mark") | change
    assert vault_record.unpack(3, fields) == vault_record.Record(3, foreign=True)
    assert vault_record.unpack(3, None) == vault_record.Record(3, foreign=True)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_value_in_vault_has_a_bound(size: int) -> None:
    assert vault_record.unpack(1, vault_record.pack(b"x" * size, 0, "m")).foreign is (size > 65_536)


@pytest.mark.parametrize(
    ("key", "path"),
    [("a/b.c~d:e*@=+", "a/b.c=7Ed=3Ae=2A=40=3D=2B"), ("a/..x", "a/=2E=2Ex"), ("a./b", "a=2E/b"), ("a.b", "a.b")],
)
def test_path_in_vault(key: str, path: str) -> None:
    assert vault_record.path_of(key) == path
    assert "/".join(vault_record.text_of(name) or "" for name in path.split("/")) == key
