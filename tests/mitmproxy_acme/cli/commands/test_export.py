"""``export``: what it writes, who may read it, and what it never overwrites."""

import base64
import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from acme_storage import open_storage
from mitmproxy_acme.cli.commands.export import encode, write_file
from mitmproxy_acme.core.errors import ConfigError
from tests.mitmproxy_acme.cli.commands.conftest import OPTIONS, Put, Run


def test_what(run: Run, put: Put) -> None:
    """Each choice is what it says, and only two of them have the private key."""
    certificate = put("a.example.test")
    said = {what: run("export", "a.example.test", "--what", what)[1] for what in ("fullchain", "cert", "chain", "key")}
    leaf, *chain = x509.load_pem_x509_certificates(said["fullchain"].encode())
    assert (leaf, tuple(chain)) == (certificate.leaf, certificate.chain)
    assert said["fullchain"] == said["cert"] + said["chain"] == certificate.chain_pem
    key = load_pem_private_key(said["key"].encode(), None)
    assert key.public_key() == certificate.leaf.public_key()
    assert run("export", "a.example.test")[1] == said["fullchain"]
    assert run("export", "a.example.test", "--key")[1] == said["key"]
    assert run("export", "a.example.test", "--all")[1] == said["key"] + said["fullchain"]
    assert encode(certificate, "der") == ssl.PEM_cert_to_DER_cert(said["cert"])
    assert [what for what, text in said.items() if "PRIVATE KEY" in text] == ["key"]


@pytest.mark.parametrize("what", ["fullchain", "key"])
def test_files_are_their_owners(run: Run, put: Put, tmp_path: Path, what: str) -> None:
    """0600 in spite of the umask, complete, and never replaced without --force."""
    put("a.example.test")
    path = tmp_path / "a.pem"
    code, out, err = run("export", "a.example.test", "--what", what, "--out", str(path))
    assert (code, out, path.stat().st_mode & 0o777) == (0, "", 0o600)
    assert err.endswith(f" of a.example.test to {path}\n")
    path.write_text("mine")
    code, _, err = run("export", "a.example.test", "--what", what, "--out", str(path))
    assert (code, path.read_text()) == (2, "mine")
    assert f"{path} exists; add --force to replace it" in err
    assert run("export", "a.example.test", "--what", what, "--out", str(path), "--force")[0] == 0
    assert path.read_text() == run("export", "a.example.test", "--what", what)[1]
    assert [child.name for child in tmp_path.iterdir() if child.is_file()] == ["a.pem"]


def test_link_is_not_followed(tmp_path: Path) -> None:
    """Neither without --force nor with it does a link lead to another file."""
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match="exists; add --force"):
        write_file(tmp_path / "link", b"ours", replace=False)
    write_file(tmp_path / "link", b"ours", replace=True)
    assert ((tmp_path / "other").read_text(), (tmp_path / "link").read_text()) == ("theirs", "ours")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_file(tmp_path / "nowhere" / "a.pem", b"ours", replace=False)


def test_nothing_stays_of_what_finds_no_room(tmp_path: Path) -> None:
    """Not even a part of a private key in a forgotten file: here no file may exceed four bytes."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from mitmproxy_acme.cli.commands.export import write_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))\n"
        "write_file(Path(sys.argv[1]), b'the private key', replace=False)\n"
    )
    done = subprocess.run([sys.executable, "-Bc", code, tmp_path / "a.pem"], capture_output=True, text=True)
    assert "a.pem cannot be written: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [".", "", "/"])
def test_folder_is_no_file(folder: str) -> None:
    """Neither one that has a name nor one that has none."""
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        write_file(Path(folder), b"ours", replace=True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--key",), 2),
        (("--all",), 2),
        (("--key", "--json"), 2),
        (("--key", "--yes"), 0),
        (("--what", "der"), 2),
        (("--what", "fullchain"), 0),
    ],
)
def test_private_key_is_not_shown_on_a_terminal(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    """Unless a person insists; DER is never shown there."""
    put("a.example.test")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    said = run("export", "a.example.test", *words)
    assert said[0] == code
    assert ("PRIVATE KEY" in said[1]) is ("--yes" in words)


def test_document(run: Run, put: Put, tmp_path: Path) -> None:
    """With --json it holds the PEM, or DER in base64, or the name of the file."""
    certificate = put("a.example.test")
    document = json.loads(run("export", "a.example.test", "--json")[1])
    assert document["pem"] == certificate.chain_pem
    assert document["fingerprint_sha256"] == certificate.fingerprint.hex()
    der = json.loads(run("export", "a.example.test", "--json", "--what", "der")[1])["der"]
    assert base64.b64decode(der) == encode(certificate, "der")
    path = str(tmp_path / "a.pem")
    document = json.loads(run("export", "a.example.test", "--json", "--key", "--out", path)[1])
    assert (document["file"], "pem" in document) == (path, False)


def test_any_name_of_a_managed_one(run: Run, put: Put) -> None:
    """And what is not stored is a failure."""
    certificate = put("a.example.test", "www.a.example.test")
    settings = (*OPTIONS, "acme_certificates=a.example.test,www.a.example.test")
    assert run("export", "www.a.example.test", settings=settings)[1] == certificate.chain_pem
    assert run("export", "b.example.test")[0] == 1


def test_broken_record_is_not_called_missing(run: Run, tmp_path: Path) -> None:
    """Who looks for it finds it in the list, as unreadable."""
    open_storage("file:", default_folder=tmp_path).put("certificates/a.example.test", b"garbage")
    code, _, err = run("export", "a.example.test")
    assert (code, err) == (1, "mitmproxy-acme export: the record of a.example.test is broken\n")
