"""What a person meets: the command line, the metrics.

This room looks on through the manager and the rooms below; it must not know mitmproxy's events or OpenSSL.
"""
