"""Typed records over ``acme_storage``: certificates, accounts, challenges, leases, limits, schedules.

Every storage key is spelt in ``keys``. This room knows no CA, no mitmproxy and no event loop: every call blocks.
"""
