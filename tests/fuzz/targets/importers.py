"""Files and keys of other tools that a person imports from: whatever they hold, one item is rejected, not the run."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from mitmproxy_acme.cli.importers import acme_sh, caddy, certbot, kong
from mitmproxy_acme.cli.importers.item import FoundCertificate, ImportItem, from_pem
from tests.mitmproxy_acme.fakes import DIRECTORY, make_certificate

from ..der_mutator import pem_mutator
from ..mutators import behind_line, json_mutator, text_mutator, within
from ..target import Target
from .certificates import _KEY, _key_pem, _use

_NAME = "a.example.test"


def import_file(data: bytes) -> None:
    """A configuration of certbot, acme.sh or Caddy; the first line says whose."""
    line, content = behind_line(data)
    tool = line.strip().decode("latin-1")
    if tool not in _TOOLS:
        return
    file, read = _TOOLS[tool]
    target = _folder(tool) / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    _require(list(read(_folder(tool))))


# Where the configuration is in the folder of a tool, and what reads that folder.
_TOOLS: dict[str, tuple[str, Callable[[Path], Iterator[ImportItem]]]] = {
    "certbot": ("renewal/a.conf", certbot.read),
    "acme.sh": (f"{_NAME}/{_NAME}.conf", acme_sh.read),
    "caddy": (f"certificates/ca/{_NAME}/{_NAME}.json", lambda folder: caddy.read(folder, [DIRECTORY])),
}


@cache
def _folder(tool: str) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "live/a").mkdir(parents=True)
    (folder / "live/a/fullchain.pem").write_text("x")
    return folder


class _Keys:
    """The keys of another program's storage."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self._values = values

    def keys(self, prefix: str) -> Sequence[str]:
        return [key for key in self._values if key.startswith(prefix)]

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def close(self) -> None:
        """Do nothing."""


def import_kong(data: bytes) -> None:
    """A value of Kong's or lua-resty-acme's; the first line is its key."""
    line, value = behind_line(data)
    key = line.strip().decode("utf-8", "replace")
    account = "kong_acme:account:https://ca.test/directory:bWU"
    _require(list(kong.read(_Keys({key: value, account: b""}), [DIRECTORY])))  # type: ignore[arg-type]  # has what is used


def import_pem(data: bytes) -> None:
    """A chain and its key, behind one another; ``KEY`` stands for the one that fits."""
    chain, _, key = data.partition(b"\0")
    _require([from_pem(_NAME, chain, key.replace(b"KEY", _key_pem().encode()), "")])


def _require(items: Sequence[ImportItem]) -> None:
    for item in items:
        if isinstance(item, FoundCertificate):
            _use(item.certificate)
        else:
            assert item.why


def _pem() -> str:
    return make_certificate([_NAME], key=_KEY).chain_pem


def _files() -> list[bytes]:
    return [
        b"certbot\nserver = https://ca.test/directory\n", b"acme.sh\nLe_API='https://ca.test/directory'\n",
        b"caddy\n" + json.dumps({"sans": [_NAME], "issuer_data": {"ca": DIRECTORY}}).encode(),
    ]  # fmt: skip


def _values() -> list[bytes]:
    kong_value, resty = {"key": "KEY", "cert": _pem()}, {"pkey": "KEY", "cert": _pem(), "domain": _NAME}
    return [
        b"kong_acme:cert_key:a.test\n" + json.dumps(kong_value).encode(),
        b"domain:rsa:a.test\n" + json.dumps(resty).encode(),
    ]


TARGETS = (
    Target(
        "import_file",
        import_file,
        _files,
        [within(behind_line, json_mutator(["issuer_data", "ca"])), within(behind_line, text_mutator())],
        longest=250_000,
    ),
    Target(
        "import_kong",
        import_kong,
        _values,
        [within(behind_line, json_mutator(["key", "pkey", "cert"])), text_mutator(["kong_acme:", ":", "\n"])],
        longest=250_000,
    ),
    Target("import_pem", import_pem, lambda: [_pem().encode() + b"\0KEY"], [pem_mutator], longest=8_000),
)
