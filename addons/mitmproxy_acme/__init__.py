"""Real certificates for mitmproxy, obtained and renewed over ACME (RFC 8555).

``__all__`` is the public interface: the events that other addons receive, and the version. Everything else is private
by convention and may change in any release.

The rooms, and the one direction in which they may import:

    core          names, certificates, errors, renewal times, events; pure
      ^
    config        the options and what they mean        store      typed records over ``acme_storage``
      ^                                                   ^
    ca            the ACME client, challenges, known CAs  |
      ^                                                   |
    lifecycle     obtain, renew, revoke, share            diagnostics    what ``check`` looks at
      ^                                                   ^
    admin         the admin API, its page, metrics and the webhook
      ^
    mitm          the addon: everything that imports mitmproxy
      ^
    cli           the command line and the importers
"""

from importlib import metadata

from .core.events import CertificateExpiring, CertificateFailed, CertificateObtained, CertificateRemoved

__all__ = ["CertificateExpiring", "CertificateFailed", "CertificateObtained", "CertificateRemoved", "__version__"]

try:
    __version__ = metadata.version("mitmproxy-acme")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"
