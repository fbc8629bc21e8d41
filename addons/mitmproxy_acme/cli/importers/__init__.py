"""What others left: certificates of certbot, acme.sh, Caddy, Kong and lua-resty-acme, read where they lie.

This room knows how each of them lays out its folder or keys, and which subjects of ours a certificate is for; it must
not know arguments, output, or a CA. It never writes where it reads.

    found       a certificate that was found, or why it cannot be used
    sources     from ``caddy:/its/folder`` to what is found there
    certbot acme_sh caddy kong      one layout each
    intake      what becomes of it in our store
"""
