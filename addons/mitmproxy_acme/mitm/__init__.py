"""The addon: options, hooks and commands of mitmproxy, turned into calls of the rooms below.

No other room imports mitmproxy or pyOpenSSL. Nothing here blocks.

    tls     which certificate a client gets, and how a handshake is refused
    http    replies to http-01 challenges, and bounds for HTTP/1 and HTTP/2
    dns     the name server for dns-01 challenges
"""
