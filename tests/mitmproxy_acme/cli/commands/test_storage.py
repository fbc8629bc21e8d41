"""``mitmproxy-acme storage``: the table, the document, the question, and what is repaired."""

import json
import re
import time
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.cli import terminal
from mitmproxy_acme.cli.main import main
from tests.mitmproxy_acme.fakes import make_certificate


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A storage with an unlisted certificate, an orphan, and a foreign key."""
    url = f"file:{tmp_path}/acme"
    storage = open_storage(url, default_folder=tmp_path)
    storage.put("certificates/a.example.test", make_certificate(["a.example.test"], now=time.time()).to_record())
    storage.put("usage/gone.example.test", b'{"begun": 1.0, "usage": "used", "check_at": 0.0}')
    storage.put("somebody/else", b"x" * 2_048)
    return url


def keys(url: str) -> list[str]:
    return open_storage(url, default_folder=Path("/nowhere")).keys("")


def test_table_and_troubles(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is stored by kind, state and size; each trouble with its record; exit code 1; nothing is changed."""
    before = keys(url)

    assert main(["storage", "--set", f"acme_storage={url}"]) == 1

    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["kind", "state", "records", "size"]
    assert re.search(r"^certificates  valid  1        1\.\d KiB$", said.out, re.MULTILINE)
    assert "unknown       -      1        2.0 KiB" in said.out
    assert "unlisted: certificates/a.example.test: the renewal schedule has no entry for it" in said.out
    assert "orphaned: usage/gone.example.test: no certificate is stored for gone.example.test" in said.out
    assert "foreign: somebody/else: no release of mitmproxy-acme writes such a key" in said.out
    assert "2 of these can be repaired: mitmproxy-acme storage --repair" in said.err
    assert keys(url) == before


def test_repair_needs_confirmation(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal it needs --yes; at one it asks, and no means that nothing is changed."""
    before = keys(url)
    assert main(["storage", "--repair", "--set", f"acme_storage={url}"]) == 2
    assert "add --yes to confirm without a terminal" in capsys.readouterr().err

    asked = list[str]()

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(terminal, "is_asked_here", lambda: True)
    monkeypatch.setattr(terminal, "confirm", refuse)
    assert main(["storage", "--repair", "--set", f"acme_storage={url}"]) == 1
    assert asked == ["Repair 2 records? Proxies may go on meanwhile."]
    assert "nothing was changed" in capsys.readouterr().err
    assert keys(url) == before


def test_repair_says_each_record(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Afterwards nothing is wrong but the foreign key, which is no error."""
    assert main(["storage", "--repair", "--yes", "--set", f"acme_storage={url}"]) == 0
    said = capsys.readouterr().out
    assert "scheduled: certificates/a.example.test: the renewal schedule has no entry for it" in said
    assert "removed: usage/gone.example.test: no certificate is stored for gone.example.test" in said

    assert main(["storage", "--repair", "--yes", "--set", f"acme_storage={url}"]) == 0
    assert "there is nothing to repair" in capsys.readouterr().err


def test_document(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["storage", "--json", "--repair", "--yes", "--set", f"acme_storage={url}"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert {(row["kind"], row["state"], row["records"]) for row in document["kinds"]} == {
        ("certificates", "valid", 1),
        ("unknown", None, 1),
        ("usage", None, 1),
    }
    assert [trouble["trouble"] for trouble in document["troubles"]] == ["foreign", "orphaned", "unlisted"]
    assert document["repaired"] == {"removed": 1, "scheduled": 1}
    assert document["proxies"] == 0


def test_empty_storage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["storage", "--set", f"acme_storage=file:{tmp_path}/none"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
