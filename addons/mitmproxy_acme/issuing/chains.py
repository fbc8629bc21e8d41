"""Which of the chains that a CA offers to serve (RFC 8555 section 7.4.2, ``acme_preferred_chain``).

This module knows issuers' names; it must not know how chains are fetched.
"""

from cryptography import x509

from ..certificate import common_name


def leads_to(chain_pem: str, issuer: str) -> bool:
    """Say whether any certificate of the chain was issued by ``issuer`` (a common name).

    The last certificate's issuer is the root, which the CA does not send. Raises ``ValueError`` for no PEM.
    """
    return any(common_name(link.issuer) == issuer for link in x509.load_pem_x509_certificates(chain_pem.encode()))
