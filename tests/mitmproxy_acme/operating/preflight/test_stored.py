"""The storage that is looked at is let go of, however the looks end."""

from pathlib import Path

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.operating.preflight import inspect, stored

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


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("whole", [True, False], ids=["to the end", "until something is found"])
def test_storage_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, works: bool, whole: bool) -> None:
    """A proxy that is asked again and again (acme.check) while its storage is down must not gather connections."""
    storage = Closed(works=works)
    monkeypatch.setattr(stored, "open_storage", lambda *_, **__: storage)
    findings = inspect(_SETTINGS, tmp_path)
    while "storage" not in next(findings).what:
        assert storage.times == 0
    if whole:
        list(findings)
    findings.close()
    assert storage.times == 1
