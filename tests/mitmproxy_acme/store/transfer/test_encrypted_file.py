"""The encrypted file: what is written comes back, and a file that is not exactly as written is refused."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitmproxy_acme.core.errors import SourceError
from mitmproxy_acme.store.transfer.encrypted_file import CHUNK, EncryptedReader, EncryptedWriter, is_backup, key_from

_BLOCK = CHUNK + 16
_HEAD = len(b"mitmproxy-acme backup 1\n") + 32


def cheap(salt: bytes) -> bytes:
    """A key that takes no time to derive."""
    return salt


def written(*parts: bytes) -> bytes:
    file = io.BytesIO()
    writer = EncryptedWriter(file, cheap)
    for part in parts:
        writer.write(part)
    writer.close()
    return file.getvalue()


def read(data: bytes) -> bytes:
    return b"".join(EncryptedReader(io.BytesIO(data), cheap).chunks())


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_what_is_written_comes_back(parts: list[bytes]) -> None:
    assert read(written(*parts)) == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_any_size_comes_back(size: int) -> None:
    content = bytes(size)
    assert read(written(content)) == content
    assert read(written(*(content[start : start + 1_000] for start in range(0, size, 1_000)))) == content


_LARGE = written(bytes(range(256)) * 700)  # three chunks


@given(st.integers(0, len(_LARGE) - 1), st.integers(0, 7))
@settings(max_examples=300)
def test_every_changed_bit_is_noticed(position: int, bit: int) -> None:
    changed = bytearray(_LARGE)
    changed[position] ^= 1 << bit
    with pytest.raises(SourceError):
        read(bytes(changed))


@given(st.integers(0, len(_LARGE) - 1))
@settings(max_examples=300)
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(SourceError):
        read(_LARGE[:length])


@given(st.binary(min_size=1, max_size=100))
def test_everything_behind_the_end_is_noticed(more: bytes) -> None:
    with pytest.raises(SourceError):
        read(_LARGE + more)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 0, 1, 2), (0, 2), (1, 2), (0, 1), (0,), (0, 1, 2, 2)])
def test_chunks_are_noticed_that_are_moved_repeated_or_missing(order: tuple[int, ...]) -> None:
    body = _LARGE[_HEAD:]
    chunks = [body[start : start + _BLOCK] for start in range(0, len(body), _BLOCK)]
    assert len(chunks) == 3
    with pytest.raises(SourceError):
        read(_LARGE[:_HEAD] + b"".join(chunks[number] for number in order))


def test_chunks_of_another_file_are_noticed() -> None:
    """Of the same passphrase: each file has a salt, and so a key, of its own."""
    one, other = (written(bytes(2 * CHUNK)) for _ in range(2))
    with pytest.raises(SourceError):
        read(one[: _HEAD + _BLOCK] + other[_HEAD + _BLOCK :])


@given(st.binary(max_size=200).filter(lambda junk: not junk.startswith(b"mitmproxy-acme backup ")))
def test_other_files_are_no_backups(junk: bytes) -> None:
    assert not is_backup(io.BytesIO(junk))
    with pytest.raises(SourceError, match="it is not a backup"):
        EncryptedReader(io.BytesIO(junk), cheap)


def test_later_format_is_named() -> None:
    data = b"mitmproxy-acme backup 2\n" + _LARGE[_HEAD - 32 :]
    assert is_backup(io.BytesIO(data))
    with pytest.raises(SourceError, match="a later release wrote this backup"):
        EncryptedReader(io.BytesIO(data), cheap)


def test_wrong_passphrase_is_named() -> None:
    file = io.BytesIO()
    writer = EncryptedWriter(file, key_from("correct horse"))
    writer.write(b"content")
    writer.close()
    assert b"".join(EncryptedReader(file, key_from("correct horse")).chunks()) == b"content"
    with pytest.raises(SourceError, match="the passphrase is wrong"):
        b"".join(EncryptedReader(file, key_from("Correct horse")).chunks())


@given(st.lists(st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"")), max_size=20))
def test_lines_come_back(lines: list[bytes]) -> None:
    data = written(*(line + b"\n" for line in lines))
    assert list(EncryptedReader(io.BytesIO(data), cheap).lines(1_000)) == lines


def test_lines_are_bounded() -> None:
    """One who has the passphrase cannot make a reader hold a gigabyte."""
    data = written(b"x" * (5 * CHUNK))
    with pytest.raises(SourceError, match="too long"):
        list(EncryptedReader(io.BytesIO(data), cheap).lines(1_000))


def test_content_ends_with_a_whole_line() -> None:
    """Half a record is none."""
    with pytest.raises(SourceError, match="ends in the middle of a record"):
        list(EncryptedReader(io.BytesIO(written(b"whole\nha")), cheap).lines(1_000))
