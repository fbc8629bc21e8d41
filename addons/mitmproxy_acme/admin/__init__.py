"""The admin API and its page, the metrics and the webhook.

This room reads through ``lifecycle`` and below. It does not know the events of mitmproxy or OpenSSL.
"""
