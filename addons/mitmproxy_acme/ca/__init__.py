"""The ACME client (RFC 8555) over the ``acme`` and ``josepy`` libraries, made fit for a process that runs for years.

No other room imports these two libraries. This room does not know mitmproxy, where things are stored, or who wants a
certificate. It returns our own types: ``Certificate``, ``RenewalInfo``,
errors of ``core.errors``.
"""
