"""What a CA is asked, and how: ACME (RFC 8555) over certbot's ``acme`` and ``josepy``, mended for a long-lived proxy.

This room alone knows the acme library; it must know of storage only that it can fail (it is handed a ``Shelf``), and
nothing of mitmproxy or of who wants the certificate. Whatever leaves it is one of our words: a Certificate, a
RenewalInfo, an error of ``errors``.
"""
