"""The storage is closed after the checks, however they end."""

import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.diagnostics import storage_check
from mitmproxy_acme.diagnostics.preflight import inspect
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.key_rotation import rotate
from mitmproxy_acme.store.store import Slot, Store
from mitmproxy_acme.store.usage_marks import UsageMarks
from tests.mitmproxy_acme.fakes import UNSEALED, make_certificate

_SETTINGS = {"acme_role": "data", "acme_domains": ("**.test",)}


class Closed(Memory):
    """One that counts how often it is closed, and works or does not."""

    def __init__(self, *, works: bool) -> None:
        super().__init__()
        self._works = works
        self.times = 0

    def get(self, key: str) -> bytes | None:
        if not self._works:
            raise StorageUnavailable("it is down")
        return super().get(key)

    def close(self) -> None:
        self.times += 1


def test_plain_text_to_another_machine_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with what to write instead."""
    monkeypatch.setattr(storage_check, "open_storage", lambda *_, **__: Closed(works=True))
    found = [finding.what for finding in inspect(_SETTINGS | {"acme_storage": "redis://db.internal"}, tmp_path)]
    assert len([what for what in found if "plain text; write rediss://, so" in what]) == 1


@pytest.mark.parametrize("sealed_only", [False, True])
def test_it_is_said_when_sealed_only_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sealed_only: bool
) -> None:
    """Not before all records are sealed; nothing once it is set."""
    key, storage = Fernet.generate_key().decode(), Closed(works=True)
    monkeypatch.setattr(storage_check, "open_storage", lambda *_, **__: storage)
    settings = _SETTINGS | {"acme_storage_key": key, "acme_storage_sealed_only": sealed_only}
    certificate = make_certificate(["a.test"], now=time.time())
    assert Store(storage, UNSEALED).replace(Slot(None, None), certificate)
    found = [finding.what for finding in inspect(settings, tmp_path)]
    assert "1 of 1 stored records are not sealed, for example certificates/a.test" in "\n".join(found)
    list(rotate(storage, RecordCipher([key])))
    found = [finding.what for finding in inspect(settings, tmp_path)]
    assert len([what for what in found if "acme_storage_sealed_only=true can be set" in what]) == (not sealed_only)
    assert "not sealed" not in "\n".join(found)


@pytest.mark.parametrize(("idle", "said"), [("on", False), ("off", True)])
def test_idle_name_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, idle: str, said: bool) -> None:
    """A certificate that expires because no client asks for it is not warned of, unless all are renewed."""
    storage = Closed(works=True)
    monkeypatch.setattr(storage_check, "open_storage", lambda *_, **__: storage)
    certificate = make_certificate(["a.test"], now=time.time() - 80 * DAY)
    assert Store(storage, UNSEALED).replace(Slot(None, None), certificate)
    UsageMarks(storage).note_obtained(certificate.id, certificate.begun)
    assert UsageMarks(storage).pass_over(certificate.id, certificate.begun, certificate.not_after)
    found = [finding.what for finding in inspect(_SETTINGS | {"acme_idle": idle}, tmp_path)]
    assert any("expires in" in what for what in found) is said


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("whole", [True, False], ids=["to the end", "until something is found"])
def test_storage_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, works: bool, whole: bool) -> None:
    """A proxy that is asked again and again (acme.check) while its storage is down must not gather connections."""
    storage = Closed(works=works)
    monkeypatch.setattr(storage_check, "open_storage", lambda *_, **__: storage)
    findings = inspect(_SETTINGS, tmp_path)
    while "storage" not in next(findings).what:
        assert storage.times == 0
    if whole:
        list(findings)
    findings.close()
    assert storage.times == 1
