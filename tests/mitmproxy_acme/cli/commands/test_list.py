"""``list`` and ``show``: the table, the states, one document."""

import json

import pytest

from mitmproxy_acme.core.renewal import DAY
from tests.mitmproxy_acme.cli.commands.conftest import OPTIONS, Put, Run


def test_table(run: Run, put: Put) -> None:
    """Sorted by host, aligned columns, times in words, the CA by its alias, further names counted."""
    put("b.example.test", ago=DAY - 60)
    put("b.example.test", "d.example.test", ago=DAY - 60, mark="+rsa")
    put("a.example.test", *(f"{letter}.example.test" for letter in "cdefg"), ago=100 * DAY, ca="https://ca.test/dir")
    code, out, err = run("list")
    assert (code, err) == (0, "using the file storage directly, without the admin API (no proxy uses it now)\n")
    assert out.splitlines() == [
        "host                state    expires in  renew in  CA           names",
        "a.example.test      expired  now         now       ca.test      c.example.test, d.example.test, "
        "e.example.test, and 2 more",
        "b.example.test      valid    89 days     59 days   letsencrypt",
        "b.example.test+rsa  valid    89 days     59 days   letsencrypt  d.example.test",
    ]


def test_states_and_text(run: Run, put: Put) -> None:
    """Both choose; as JSON it is one document, also where nothing matches."""
    put("a.example.test")
    put("b.example.test", ago=100 * DAY)
    put("c.example.test", ago=89 * DAY)

    def hosts(*words: str) -> list[str]:
        return [document["host"] for document in json.loads(run("list", "--json", *words)[1])["data"]]

    assert hosts() == ["a.example.test", "b.example.test", "c.example.test"]
    assert hosts("--state", "expired", "--state", "expiring") == ["b.example.test", "c.example.test"]
    assert hosts("--search", "A.EX") == ["a.example.test"]
    assert hosts("--search", "nobody") == []
    code, out, err = run("list", "--search", "nobody")
    assert (code, out, err.splitlines()[1]) == (0, "", "no certificate is stored that matches")


def test_unknown_state_is_a_wrong_argument(run: Run) -> None:
    """Exit code 2, as for all arguments."""
    with pytest.raises(SystemExit) as ended:
        run("list", "--state", "fine")
    assert ended.value.code == 2


def test_show(run: Run, put: Put) -> None:
    """Every field that is known has a line, or a place in the document; any of the names will do."""
    put("a.example.test", "www.a.example.test")
    settings = (*OPTIONS, "acme_certificates=a.example.test,www.a.example.test")
    _, out, _ = run("show", "www.A.example.test", settings=settings)
    said = {line[:20].strip(): line[20:] for line in out.splitlines()}
    assert (said["host"], said["managed"], said["state"]) == ("a.example.test", "yes", "valid")
    assert said["names"] == "a.example.test, www.a.example.test"
    document = json.loads(run("show", "a.example.test", "--json")[1])
    assert (document["host"], document["managed"], document["issuer_cn"]) == ("a.example.test", False, "Fake Issuer")


def test_errors_as_json(run: Run) -> None:
    """Standard output has one document even then, and standard error the sentence."""
    code, out, err = run("show", "a.example.test", "--json")
    error = "no certificate is stored for a.example.test"
    assert (code, json.loads(out), err.splitlines()[-1]) == (1, {"error": error}, f"mitmproxy-acme show: {error}")
    code, out, err = run("show", "a\x1b[2J", "--json")
    assert (code, "\x1b" in out + err) == (2, False)
