"""What other addons may import from ``mitmproxy_acme``."""

import subprocess
import sys
from importlib import metadata

import mitmproxy_acme
from mitmproxy_acme.core import events
from mitmproxy_acme.mitm import event_hooks


def test_package_exports_the_events_and_the_version() -> None:
    assert mitmproxy_acme.__all__ == [
        "CertificateExpiring",
        "CertificateFailed",
        "CertificateObtained",
        "CertificateRemoved",
        "__version__",
    ]
    for name in mitmproxy_acme.__all__[:-1]:
        assert getattr(mitmproxy_acme, name) is getattr(events, name)
    assert mitmproxy_acme.__version__ == metadata.version("mitmproxy-acme")


def test_every_event_that_addons_receive_is_exported() -> None:
    received = {
        hook.__annotations__["event"]
        for hook in vars(event_hooks).values()
        if isinstance(hook, type) and hook.__module__ == event_hooks.__name__
    }
    assert received == {getattr(mitmproxy_acme, name) for name in mitmproxy_acme.__all__[:-1]}


def test_importing_the_package_imports_neither_mitmproxy_nor_the_other_rooms() -> None:
    code = (
        "import mitmproxy_acme; "
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('mitmproxy_acme.')}; "
        "sys.exit('mitmproxy' in sys.modules or rooms != {'core'})"
    )
    assert subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]).returncode == 0
