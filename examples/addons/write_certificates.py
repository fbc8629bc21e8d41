"""Write each certificate that the ACME addon obtains to a file for another server (nginx, HAProxy, Postfix, …).

    mitmdump -s addons/acme_addon.py -s examples/addons/write_certificates.py … --set write_certificates_to=/etc/acme

Each file has the chain and the private key, and is replaced atomically: the other server never reads a pair that does
not match. In nginx it is the value of both settings:

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
        # *.example.com is written to _.example.com.pem.
        path = Path(ctx.options.write_certificates_to) / f"{event.subject.id.replace('*', '_')}.pem"
        content = event.certificate.chain_pem + event.certificate.key_pem
        try:
            await asyncio.to_thread(replace, path, content)
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error)
        else:
            logger.info("wrote %s", path)


def replace(path: Path, content: str) -> None:
    """Replace a file atomically; only its owner can read it. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
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
