"""``mitmproxy-acme import``: its lines, its exit codes, and what it leaves in the storage of the options."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageUnavailable, open_storage
from mitmproxy_acme.cli.main import main
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.cli.importers import layouts
from tests.mitmproxy_acme.fakes import UNSEALED, make_certificate
from tests.servers.base import free_port

OPTIONS = ("acme_domains=**.example.test", "acme_tos_accepted=true")


class Command:
    """The command in a confdir of its own, whose storage is the default one there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.confdir, self.etc, self._capsys = folder / "confdir", folder / "etc", capsys

    def run(self, *more: str, settings: tuple[str, ...] = OPTIONS, source: str = "") -> tuple[int, str, str]:
        """Return the exit code, the output and the errors."""
        words = [word for setting in settings for word in ("--set", setting)]
        code = main(["import", source or f"certbot:{self.etc}", "--confdir", str(self.confdir), *words, *more])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    @property
    def keys(self) -> list[str]:
        return open_storage("file:", default_folder=self.confdir).keys("")


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def test_lines_and_summary(command: Command) -> None:
    """One line for each certificate says what became of it, the last one how many; what is unusable is exit code 1."""
    now = float(int(time.time()))
    for name in ("b.example.test", "a.example.test"):
        layouts.certbot(command.etc, name, make_certificate([name], now=now))
    layouts.certbot(command.etc, "old", make_certificate(["old.example.test"], now=now - 100 * DAY))
    layouts.certbot(command.etc, "else", make_certificate(["elsewhere.test"], now=now))
    live = layouts.certbot(command.etc, "bad", make_certificate(["bad.example.test"], now=now))
    (live / "privkey.pem").resolve().write_text(layouts.key_pem(make_certificate(["x.test"])))
    before = layouts.snapshot(command.etc)

    code, out, err = command.run()

    until = day(now + 90 * DAY)
    assert out.splitlines() == [
        f"imported a.example.test, valid until {until}, issued by Fake Issuer",
        f"imported b.example.test, valid until {until}, issued by Fake Issuer",
        "unusable bad: the certificate of bad does not belong to its private key",
        "skipped else: not included in acme_domains or acme_certificates",
        f"skipped old: it expired on {day(now - 10 * DAY)}",
        "imported 2, skipped 2, unusable 1",
    ]
    assert (code, err) == (1, "")
    assert layouts.snapshot(command.etc) == before


def test_objects(command: Command) -> None:
    """With --json there is one for each on standard output, and the count on standard error."""
    layouts.certbot(command.etc, "a", make_certificate(["a.example.test"], now=time.time()))
    layouts.certbot(command.etc, "else", make_certificate(["elsewhere.test"], now=time.time()))
    code, out, err = command.run("--json", "--dry-run")
    assert (code, err) == (0, "would import 1, skipped 1, unusable 0\n")
    said = [json.loads(line) for line in out.splitlines()]
    assert [(item["name"], item["outcome"], item["dry_run"]) for item in said] == [
        ("a.example.test", "imported", True),
        ("else", "left", True),
    ]


def test_second_run_changes_nothing(command: Command) -> None:
    """Everything is skipped, the files of the storage stay as they are, and that is success."""
    layouts.certbot(command.etc, "a", make_certificate(["a.example.test"], now=time.time()))
    assert command.run()[0] == 0
    before = layouts.snapshot(command.confdir)

    code, out, _ = command.run()

    assert code == 0
    assert out.splitlines() == ["skipped a: it is stored already", "imported 0, skipped 1, unusable 0"]
    assert layouts.snapshot(command.confdir) == before


def test_dry_run(command: Command) -> None:
    """Nothing is written, not even a folder, and the words say so."""
    layouts.certbot(command.etc, "a", make_certificate(["a.example.test"], now=time.time()))
    code, out, _ = command.run("--dry-run")
    assert code == 0
    assert out.startswith("would import a.example.test, valid until ")
    assert out.splitlines()[-1] == "would import 1, skipped 0, unusable 0"
    assert not command.confdir.exists()


def test_both_kinds_of_one_name(command: Command) -> None:
    """acme.sh keeps an RSA and an ECDSA certificate of one name: the longer-lived is imported."""
    home, now = command.etc, time.time()
    short = make_certificate(["a.example.test"], now=now, lifetime=30 * DAY)
    long = make_certificate(["a.example.test"], now=now, lifetime=60 * DAY)
    layouts.acme_sh(home, "a.example.test", short, ecc=False)
    layouts.acme_sh(home, "a.example.test", long)
    _, out, _ = command.run(source=f"acme.sh:{home}")
    until = day(long.not_after)
    assert out.splitlines() == [
        f"imported a.example.test, valid until {until}, issued by Fake Issuer",
        f"skipped a.example.test: the stored one is valid until {until}",
        "imported 1, skipped 1, unusable 0",
    ]


def test_other_ca_is_said(command: Command) -> None:
    """Certificates of a CA that is not in the options are imported, and the summary says that they will be replaced."""
    now = time.time()
    layouts.caddy(command.etc, make_certificate(["a.example.test"], now=now), layouts.LETS_ENCRYPT)
    layouts.caddy(command.etc, make_certificate(["b.example.test"], now=now), layouts.ZEROSSL)
    layouts.caddy(command.etc, make_certificate(["localhost"], now=now), "local")
    code, out, _ = command.run(source=f"caddy:{command.etc}")
    assert code == 0
    assert out.splitlines()[2:] == [
        "skipped localhost: Caddy's own CA issued it; only Caddy can renew it",
        "1 of them are from a CA that is not in acme_ca: they are replaced when a client asks for the name, "
        "managed ones when a proxy starts",
        "imported 2, skipped 1, unusable 0",
    ]
    store = Store(open_storage("file:", default_folder=command.confdir), UNSEALED)
    slots = [store.slot(ServerName(f"{name}.example.test")).certificate for name in "ab"]
    assert [slot.ca for slot in slots if slot] == [layouts.LETS_ENCRYPT, layouts.ZEROSSL]


def test_keys_are_sealed(command: Command, tmp_path: Path) -> None:
    """With acme_storage_key no private key is stored in clear."""
    key = tmp_path / "storage.key"
    key.write_bytes(Fernet.generate_key())
    layouts.certbot(command.etc, "a", make_certificate(["a.example.test"], now=time.time()))
    assert command.run(settings=(*OPTIONS, f"acme_storage_key=file:{key}"))[0] == 0
    storage = open_storage("file:", default_folder=command.confdir)
    record = storage.get("certificates/a.example.test") or b""
    assert b"sealed_key" in record
    assert b"PRIVATE KEY" not in record
    assert Store(storage, RecordCipher([key.read_text()])).slot(ServerName("a.example.test")).certificate


def test_names_cannot_move_the_cursor(command: Command) -> None:
    """Control characters in the name of a folder do not reach the terminal."""
    layouts.certbot(command.etc, "a\x1b[2Jb", make_certificate(["elsewhere.test"], now=time.time()))
    _, out, _ = command.run()
    assert out.startswith("skipped a?[2Jb: ")


@pytest.mark.parametrize(
    ("settings", "source", "said"),
    [
        ((), "", "no name may have a certificate; set acme_domains or acme_certificates"),
        (("acme_domains=a.test",), "", "acme_tos_accepted: letsencrypt issues no certificate"),
        ((*OPTIONS, "acme_storage=memory:"), "", "acme_storage: memory: belongs to one process"),
        ((*OPTIONS, "acme_storage=gopher://x"), "", "acme_storage: the storage URL's scheme gopher: is unknown"),
        ((*OPTIONS, "acme_ca=nosuch"), "", "acme_ca: 'nosuch' is neither a known CA"),
        ((*OPTIONS, "acme_cache_size=many"), "", "acme_cache_size: 'many' is not a whole number"),
        (OPTIONS, "nginx:/etc/nginx", "this kind of source is unknown"),
        (OPTIONS, "caddy:/nowhere", "/nowhere cannot be read: No such file or directory"),
        (OPTIONS, "kong+redis://:hidden@127.0.0.1:{port}", "storage redis 127.0.0.1:{port}: "),
    ],
)
def test_wrong_arguments(command: Command, settings: tuple[str, ...], source: str, said: str) -> None:
    """One sentence on standard error, exit code 2, nothing written."""
    layouts.certbot(command.etc, "a", make_certificate(["a.example.test"], now=time.time()))
    port = free_port()
    code, out, err = command.run(settings=settings, source=source.format(port=port))
    assert (code, out) == (2, "")
    assert err.startswith(f"mitmproxy-acme import: {said.format(port=port)}")
    assert len(err.splitlines()) == 1
    assert "hidden" not in err
    assert not command.confdir.exists()


def test_failure_is_a_document_too(command: Command) -> None:
    """With --json, as of every other command."""
    code, out, err = command.run("--json", source="elsewhere:/x")
    assert (code, err) == (2, f"mitmproxy-acme import: {json.loads(out)['error']}\n")


def test_storage_that_fails_half_way(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was imported stays and was said; the failure is exit code 2, and the next run does the rest."""
    for name in ("a.example.test", "b.example.test"):
        layouts.certbot(command.etc, name, make_certificate([name], now=time.time()))
    with monkeypatch.context() as broken:
        slot = Store.slot

        def failing(self: Store, id: ServerName) -> object:
            if id.startswith("b."):
                raise StorageUnavailable("storage x: disk full")
            return slot(self, id)

        broken.setattr(Store, "slot", failing)
        code, out, err = command.run()
    assert code == 2
    assert out.startswith("imported a.example.test, ")
    assert err == "mitmproxy-acme import: storage x: disk full\n"
    assert command.run()[1].splitlines()[-1] == "imported 1, skipped 1, unusable 0"


def test_no_private_key_is_shown(command: Command) -> None:
    """Whatever is wrong, no line of a key is in the output."""
    secrets: list[str] = []
    spoiled: dict[str, Callable[[str], str]] = {
        "whole": lambda text: text,
        "short": lambda text: text[:150],
        "other": lambda text: text.replace("-", "+"),
    }
    for name, spoil in spoiled.items():
        live = layouts.certbot(command.etc, name, make_certificate([f"{name}.example.test"], now=time.time()))
        secrets += [line for line in (live / "privkey.pem").read_text().splitlines() if "-" not in line]
        for file in ("privkey.pem", "fullchain.pem"):
            path = (live / file).resolve()
            path.write_text(spoil(path.read_text()))
    code, out, err = command.run()
    assert code == 1
    assert secrets
    assert [secret for secret in secrets if secret in out + err] == []
    assert command.keys
