"""``issue``, ``renew`` and ``revoke``: what is asked for, and what is refused before anything is."""

import codecs
import io
import json
import time
from pathlib import Path

import pytest

from acme_storage import open_storage
from mitmproxy_acme.cli.commands import arguments
from mitmproxy_acme.cli.commands.issue import read_lines, wanted
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.cli.commands.conftest import OPTIONS, Put, Run
from tests.mitmproxy_acme.fakes import UNSEALED
from tests.servers.base import free_port

CONFIG = Config.from_options(
    {"acme_domains": ["**.example.test"], "acme_certificates": ["m.test,www.m.test"], "acme_tos_accepted": True}
)


def test_lines_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments and empty lines are none; commas and blanks separate; - is standard input."""
    content = b"# all\n\n a.test # mine\r\nb.test,c.test\nd.test  e.test, f.test\n,\n"
    lines = [["a.test"], ["b.test", "c.test"], ["d.test", "e.test", "f.test"]]
    for mark in (b"", codecs.BOM_UTF8):
        (tmp_path / "names.txt").write_bytes(mark + content)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(mark + content)))
        assert read_lines(str(tmp_path / "names.txt")) == read_lines("-") == lines


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """It is a wrong argument."""
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"names\.txt cannot be read: (No such file|it is not UTF-8)"):
        read_lines(str(tmp_path / "names.txt"))


def test_one_name_for_each_certificate() -> None:
    """Each once, in order; a name of a managed certificate means that certificate; others cannot share one."""
    texts = [["A.example.test"], ["www.m.test"], ["m.test", "www.m.test"], ["a.example.test."], ["[2001:DB8::1]"]]
    assert wanted(texts, CONFIG) == (["a.example.test", "m.test", "2001:db8::1"], [])
    names, refused = wanted([["a.example.test", "b.example.test"], ["www.m.test", "x.test"], ["1.2.3"]], CONFIG)
    assert names == []
    assert [result.host for result in refused] == ["a.example.test,b.example.test", "www.m.test,x.test", "1.2.3"]
    assert all("acme_certificates" in result.reason for result in refused[:2])
    assert "is not a host name" in refused[2].reason


def test_second_kind_of_key_is_named() -> None:
    """NAME+rsa is a certificate of its own, by any of its names."""
    given = {"acme_domains": ["**.example.test"], "acme_certificates": ["m.test,www.m.test"], "acme_tos_accepted": True}
    both = Config.from_options(given | {"acme_key_type": ["ecdsa-p256", "rsa-2048"]})
    texts = [["A.example.test+RSA"], ["a.example.test"], ["www.m.test+rsa"]]
    assert wanted(texts, both) == (["a.example.test+rsa", "a.example.test", "m.test+rsa"], [])
    assert arguments.name_of("A.example.test+RSA") == "a.example.test+rsa"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("issue",), "give the names as arguments, or in a file with -f"),
        (("issue", "a.example.test", "-f", "-"), "give the names as arguments, or in a file with -f"),
        (("renew",), "give names, or --all-due"),
        (("renew", "a.example.test", "--all-due"), "give names, or --all-due"),
        (("renew", "fe80::1"), "NAME: 'fe80::1' is an IP address"),
        (("revoke", "a.example.test"), "a revocation cannot be undone; add --yes to confirm without a terminal"),
        (("export", "a\x1b[2Jb"), "is not a host name"),
        (("check", "--dns", "dns.test"), "--dns: 'dns.test' is not the address of a DNS server"),
    ],
)
def test_wrong_arguments(run: Run, words: tuple[str, ...], said: str) -> None:
    """One sentence, exit code 2."""
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"mitmproxy-acme {words[0]}: ")
    assert said in err
    assert "\x1b" not in err


@pytest.mark.parametrize("number", ["0", "65", "many"])
def test_parallel_has_bounds(run: Run, number: str) -> None:
    """One CA is not to be flooded."""
    with pytest.raises(SystemExit) as ended:
        run("issue", "a.example.test", "--parallel", number)
    assert ended.value.code == 2


def test_stored_names_need_no_ca(run: Run, put: Put) -> None:
    """They are counted, and the CA, which is away, is not asked."""
    ca = f"https://localhost:{free_port()}/dir"
    for name in ("a.example.test", "b.example.test"):
        put(name, ca=ca)
    code, out, _ = run("issue", "a.example.test", "b.example.test", settings=(*OPTIONS, f"acme_ca={ca}"))
    assert (code, out) == (0, "obtained 0, stored already 2, failed 0\n")


def test_objects_of_what_failed(run: Run) -> None:
    """One for each on standard output; the count and the reasons are on standard error."""
    ca = f"https://localhost:{free_port()}/dir"
    words = ("issue", "a.example.test", "b.example.test", "x.test", "--parallel", "1", "--json")
    code, out, err = run(*words, settings=(*OPTIONS, f"acme_ca={ca}"))
    assert code == 1
    first, *rest = [json.loads(line) for line in out.splitlines()]
    assert (first["host"], first["outcome"], first["certificate"]) == ("a.example.test", "failed", None)
    assert first["reason"] == f"{ca} cannot be reached: no connection"
    assert first["retry_at"]
    assert [(result["host"], result["outcome"]) for result in rest] == [
        ("b.example.test", "not_tried"),
        ("x.test", "not_tried"),
    ]
    assert f"stopped, because the others would fail too: {ca} cannot be reached" in err
    assert err.splitlines()[-1] == "obtained 0, stored already 0, failed 1, not tried 2"


def test_all_due_leaves_out_what_failed(run: Run, put: Put, tmp_path: Path) -> None:
    """What is due is tried; what failed too recently waits, and what is not due too."""
    store = Store(open_storage("file:", default_folder=tmp_path), UNSEALED)
    store.save_backoff("failed.example.test", Backoff(1, time.time() + 600, "no route"))
    ca = f"https://localhost:{free_port()}/dir"
    put("due.example.test", ago=89 * DAY, ca=ca)
    put("failed.example.test", ago=89 * DAY, ca=ca)
    put("fine.example.test", ca=ca)
    settings = (*OPTIONS, f"acme_ca={ca}")
    code, out, err = run("renew", "--all-due", settings=settings)
    assert (code, out) == (1, "renewed 0, failed 1\n")
    assert "failed due.example.test: " in err


def test_revocation_of_what_is_not_there(run: Run) -> None:
    """Not found is a failure, and nothing is asked."""
    code, _, err = run("revoke", "a.example.test", "--yes")
    assert (code, "no certificate is stored for a.example.test" in err) == (1, True)


@pytest.mark.parametrize(("typed", "code"), [("n\n", 1), ("", 1), ("y\n", 1)])
def test_person_is_asked(run: Run, put: Put, monkeypatch: pytest.MonkeyPatch, typed: str, code: int) -> None:
    """On a terminal, with the certificate to revoke; only yes continues (to a CA that is down here)."""
    ca = f"https://localhost:{free_port()}/dir"
    put("a.example.test", ca=ca)
    monkeypatch.setattr("mitmproxy_acme.cli.terminal.is_asked_here", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    said = run("revoke", "a.example.test", "--reason", "keyCompromise", settings=(*OPTIONS, f"acme_ca={ca}"))
    assert said[0] == code
    assert "Revoke the certificate of a.example.test, issued by Fake Issuer, valid until " in said[2]
    assert "Reason: keyCompromise. A certificate with a new key is ordered first. [y/N]" in said[2]
    assert ("nothing was changed" in said[2]) is (typed != "y\n")
    assert (f"{ca} cannot be reached" in said[2]) is (typed == "y\n")
