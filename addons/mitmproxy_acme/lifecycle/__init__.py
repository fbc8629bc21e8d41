"""Obtain, renew, revoke and share certificates: the decisions, over ``store`` and ``ca``.

This room knows one event loop and the thread pools. It does not know mitmproxy or how a person asks.
"""
