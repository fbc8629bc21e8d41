"""What a client meets: OpenSSL contexts with our certificates, and answers to challenges.

This room knows mitmproxy's TLS and HTTP events and the manager; it must not know storage, or how a CA is talked to.
Nothing in it blocks, and a handshake whose certificate is in memory awaits nothing.
"""
