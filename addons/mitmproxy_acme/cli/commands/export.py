"""``mitmproxy-acme export``: a stored certificate as a file, for another server.

It reads the storage directly: the admin API never returns a private key.
"""

import argparse
import base64
import contextlib
import os
import secrets
import sys
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.errors import ConfigError, NotFound
from ...core.names import ServerName
from ...store.encryption import RecordCipher
from ...store.store import Store
from .. import terminal
from ..environment import open_shared
from . import arguments

HELP = "write a stored certificate, or its private key, to a file"
_WHAT = {
    "fullchain": "certificate and intermediates",
    "cert": "the certificate alone",
    "chain": "the intermediates alone",
    "key": "the private key (PKCS #8)",
    "all": "private key, certificate and intermediates in one file",
    "der": "the certificate alone, as DER",
}
_SECRET = ("key", "all")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    arguments.add_name(command)
    command.add_argument(
        "--out",
        default="-",
        metavar="FILE",
        help="readable by its owner only (default: -, standard output)",
    )
    what = command.add_mutually_exclusive_group()
    choices = "; ".join(f"{name}: {meaning}" for name, meaning in _WHAT.items())
    what.add_argument(
        "--what",
        choices=list(_WHAT),
        default="fullchain",
        help=f"as PEM: {choices}",
    )
    what.add_argument("--key", dest="what", action="store_const", const="key", help="the same as --what key")
    what.add_argument("--all", dest="what", action="store_const", const="all", help="the same as --what all")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.add_argument("--yes", action="store_true", help="show a private key on a terminal")
    arguments.add_json(command)


def run(chosen: argparse.Namespace) -> int:
    """Export it. Raises ``NotFound``."""
    name = arguments.name_of(chosen.name)
    if chosen.out == "-" and sys.stdout.isatty():
        _require_showable(chosen)
    certificate = _stored(chosen, arguments.config_of(chosen), name)
    content = encode(certificate, chosen.what)
    if chosen.out != "-":
        write_file(Path(chosen.out), content, replace=chosen.force)
    if chosen.json:
        terminal.say_document(_document(chosen, certificate, content))
    elif chosen.out == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        terminal.remark(f"wrote {_WHAT[chosen.what]} of {certificate.id} to {chosen.out}")
    return 0


def _require_showable(chosen: argparse.Namespace) -> None:
    if chosen.what in _SECRET and not chosen.yes:
        raise ConfigError("the terminal would show a private key; name a file with --out, or add --yes")
    if chosen.what == "der" and not chosen.json:
        raise ConfigError("DER is binary and not for a terminal; name a file with --out")


def _stored(chosen: argparse.Namespace, config: Config, name: ServerName) -> Certificate:
    subject = config.subject(name)
    with closing(open_shared(config, arguments.confdir_of(chosen))) as storage:
        store = Store(storage, RecordCipher.of(config))
        slot = store.slot(subject.id if subject is not None else name)
    if slot.certificate is None:
        broken = slot.corrupt or slot.record is not None
        raise NotFound(f"the record of {name} is broken" if broken else f"no certificate is stored for {name}")
    return slot.certificate


def encode(certificate: Certificate, what: str) -> bytes:
    """Return the part that ``what`` names; ``all`` is in the order that HAProxy and others read."""
    match what:
        case "cert":
            return certificate.leaf_pem.encode()
        case "chain":
            return certificate.intermediates_pem.encode()
        case "der":
            return certificate.leaf.public_bytes(Encoding.DER)
        case "key":
            return certificate.key_pem.encode()
        case "all":
            return (certificate.key_pem + certificate.chain_pem).encode()
    return certificate.chain_pem.encode()


def write_file(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file that only its owner can read, completely or not at all. Raises ``ConfigError``."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:  # the draft never stays: it may be a private key
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                draft.replace(path)
            else:
                path.hardlink_to(draft)  # fails if the file exists
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
    except FileExistsError:
        raise ConfigError(f"{path} exists; add --force to replace it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _document(chosen: argparse.Namespace, certificate: Certificate, content: bytes) -> dict[str, str]:
    about = {"host": certificate.id, "what": chosen.what, "fingerprint_sha256": certificate.fingerprint.hex()}
    if chosen.out != "-":
        return {**about, "file": chosen.out}
    if chosen.what == "der":
        return {**about, "der": base64.b64encode(content).decode()}
    return {**about, "pem": content.decode()}
