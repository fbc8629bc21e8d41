"""Write each certificate that the ACME addon obtains where another server reads it (nginx, HAProxy, Postfix, …).

    mitmdump -s addons/acme_addon.py -s examples/addons/write_certificates.py … --set write_certificates_to=/etc/acme

One file for each certificate, chain and private key together, replaced as a whole: the other server never finds a pair
that does not match. nginx takes it for both of its settings:

    ssl_certificate     /etc/acme/www.example.com.pem;
    ssl_certificate_key /etc/acme/www.example.com.pem;
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from pathlib import Path

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader

from mitmproxy_acme import CertificateObtained

logger = logging.getLogger(__name__)


class WriteCertificates:
    def load(self, loader: Loader) -> None:
        loader.add_option("write_certificates_to", str, "", "Folder that obtained certificates are written to.")

    async def acme_certificate_obtained(self, event: CertificateObtained) -> None:
        if not ctx.options.write_certificates_to:
            return
        # A wildcard is *.example.com to us, and _.example.com to a file system.
        path = Path(ctx.options.write_certificates_to) / f"{event.subject.id.replace('*', '_')}.pem"
        content = event.certificate.chain_pem + event.certificate.key_pem
        try:
            await asyncio.to_thread(replace, path, content)
        except OSError as error:
            logger.warning("%s is not written: %s", path, error)
        else:
            logger.info("%s is written", path)


def replace(path: Path, content: str) -> None:
    """Put a file in the place of another, whole or not at all, readable by its owner only. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from its first moment
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(new).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(new).unlink()
        raise


addons = [WriteCertificates()]
