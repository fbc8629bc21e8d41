"""Certificates of certbot, acme.sh, Caddy, Kong and lua-resty-acme, read from their own folders and keys.

This package knows how each program lays out its folder or keys, and which of our certificates an item can serve as; it
must not know arguments, output, or a CA. It never writes to a source.

    item        a certificate of a source, or why it cannot be used
    sources     from ``caddy:/its/folder`` to the items in it
    certbot acme_sh caddy kong      one layout each
    importer    decides where to store an item
"""
