"""The ACME client (RFC 8555) over the ``acme`` and ``josepy`` libraries, adapted to a process that runs for years.

No other room imports these two libraries. This room does not know mitmproxy, where records are stored, or who wants a
certificate. It returns our own types: ``Certificate``, ``RenewalInfo``, and the errors of ``core.errors``.
"""
