"""What a client meets: OpenSSL contexts with our certificates, and answers to challenges.

This room knows mitmproxy's TLS, HTTP and DNS events and the manager; of storage it must know only that it can fail, and
nothing of how a CA is talked to.
Nothing in it blocks, and a handshake whose certificate is in memory awaits nothing.
"""
