"""TLS and QUIC: which certificate a client gets, and how a handshake is refused.

A handshake whose certificate is in memory awaits nothing here.
"""
