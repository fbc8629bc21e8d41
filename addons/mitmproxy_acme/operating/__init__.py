"""What a person or a program meets: the command line, the admin API with its page, metrics, webhook, deploy hook.

This room looks on through the manager and the rooms below; it must not know mitmproxy's events or OpenSSL.
But for ``mitmdump``, which stands above the addon as the shim does: it is what ``run`` starts.
"""
