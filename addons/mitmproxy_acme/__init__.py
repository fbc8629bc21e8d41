"""Real certificates for mitmproxy, obtained and renewed over ACME (RFC 8555).

The rooms, and the one direction in which they may import:

    errors names certificate renewal backoff limits account config events logs     the words everybody speaks; pure
        ^
    keeping (what is stored)      issuing (what a CA is asked)      threads (where blocking work runs)
        ^
    admission lookup obtaining issuance (the steps to a certificate, and who may ask for them)
        ^
    manager (get, obtain, renew: the one place where decisions are wired)
        ^
    renewer (when)    unrevoked (what is left undone)    feed (what other nodes did)
    serving (what a client meets)    operating (what a person meets)
        ^
    service    addon    traffic    hooks    commands (mitmproxy's options, hooks and command bar turned into calls)
        ^
    operating.mitmdump (what `mitmproxy-acme run` starts)
"""

from importlib import metadata

try:
    __version__ = metadata.version("mitmproxy-acme")
except metadata.PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0+checkout"
