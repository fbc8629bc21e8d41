"""The admin API and its page, the metrics and the webhook.

This room uses ``lifecycle`` and the rooms below it. It must not know mitmproxy or OpenSSL.
"""
