"""Check tls-alpn-01: whether the clients' port shows validators the proof from this storage (RFC 8737).

This module knows what a validator offers and receives; it must not know DNS or storage.
"""

import socket
import ssl

from cryptography import x509

from ..core.names import tls_alpn_server_name
from ..core.proof import ACME_IDENTIFIER, ACME_TLS, acme_identifier
from .finding import Finding, fail, passed
from .ports import ANSWER_WITHIN, CONNECT_WITHIN, at, unreachable

# The alert of a server that speaks other protocols (RFC 7301 section 3.2), and OpenSSL's words for bytes without TLS.
_OTHER_PROTOCOLS, _NOT_TLS = "no application protocol", "wrong version number"


def check(name: str, address: str, port: int, digest: str, *, up: bool) -> Finding:
    """Connect as a validator does; blocks for seconds.

    ``digest`` is the proof in the storage for the name, empty if none could be stored; ``up`` says that a proxy is up
    on that storage.
    """
    where = f"{name}: {at(address, port)}"
    try:
        plain = socket.create_connection((address, port), CONNECT_WITHIN)
    except OSError as error:
        return unreachable(where, error, up=up)
    with plain:
        try:
            shown = _shown(plain, name)
        except OSError as error:
            return _refused(where, error)
    return _judge(where, shown, digest)


def _shown(plain: socket.socket, name: str) -> x509.Certificate | None:
    """Return the certificate that a validator receives; None if the server does not select the validator's protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a validator trusts the extension alone
    context.set_alpn_protocols([ACME_TLS])
    plain.settimeout(ANSWER_WITHIN)
    with context.wrap_socket(plain, server_hostname=tls_alpn_server_name(name)) as secure:
        if secure.selected_alpn_protocol() != ACME_TLS:
            return None
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")


def _refused(where: str, error: OSError) -> Finding:
    text = str(error).lower()  # Python has no reason code for some alerts
    if _OTHER_PROTOCOLS in text:
        return _another_program(where)
    if _NOT_TLS in text or isinstance(error, TimeoutError):
        return fail(f"{where} accepts connections but does not speak TLS; give that port to the proxy")
    # mitmproxy closes the connection, and it depends on timing whether the alert arrives first.
    return fail(
        f"{where} closes the connection of tls-alpn-01 validators, as a proxy with this addon does that does not use "
        "this storage; set the same acme_storage for both, or give that port to the proxy"
    )


def _judge(where: str, shown: x509.Certificate | None, digest: str) -> Finding:
    if shown is None:
        return _another_program(where)
    if not digest:
        return passed(f"{where} answers validators of tls-alpn-01")
    try:
        proof = shown.extensions.get_extension_for_oid(ACME_IDENTIFIER).value
    except (x509.ExtensionNotFound, ValueError):
        proof = None
    if proof == acme_identifier(digest):
        return passed(f"{where} answers tls-alpn-01 from this storage")
    return fail(
        f"{where} shows tls-alpn-01 validators another proof than this storage has; unless an order is running, give "
        "that port to the proxy"
    )


def _another_program(where: str) -> Finding:
    return fail(
        f"{where} is answered by another program, which does not speak {ACME_TLS}; pass connections on to the proxy "
        "with TLS untouched, or use another of acme_challenges"
    )
