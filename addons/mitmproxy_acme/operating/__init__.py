"""What a person meets: the command line.

This room looks on through the manager and the rooms below; it must not know mitmproxy's events or OpenSSL.
"""
