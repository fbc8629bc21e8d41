"""The options as mitmproxy learns them: name, type, default, help. docs/reference/options.md is compared with this.

This module knows what an operator may write; ``config`` knows what it means.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option; ``type`` is what mitmproxy's option manager expects, ``choices`` the only values allowed, if any."""

    name: str
    type: object
    default: str | bool | int | tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()


_NAMES = Sequence[str]

OPTIONS = (
    Option(
        "acme_domains",
        _NAMES,
        (),
        "Names that may get a certificate on demand: a.example.com, *.example.com (one label), **.example.com "
        "(any depth), re:PATTERN (full match, RE2 syntax).",
    ),
    Option("acme_allow_any_domain", bool, False, "Let any name get a certificate on demand."),
    Option(
        "acme_ask", str, "", "URL to ask, with ?domain=NAME, before an on-demand order; a 2xx reply allows the order."
    ),
    Option(
        "acme_certificates",
        _NAMES,
        (),
        "Managed certificates, one per entry, names separated by commas: example.com,www.example.com; or, with a "
        "DNS challenge, example.com,*.example.com; IP addresses too.",
    ),
    Option(
        "acme_ip_certificates",
        bool,
        False,
        "Order certificates for the IP addresses that clients without SNI reach (RFC 8738); not with DNS challenges.",
    ),
    Option(
        "acme_on_demand",
        str,
        "wait",
        "Hold the first handshake until the certificate is there (wait), answer at once with the fallback while it "
        "is obtained (background), or never order on demand (off).",
        ("wait", "background", "off"),
    ),
    Option("acme_handshake_wait", int, 15, "The longest time to hold a handshake, in seconds."),
    Option(
        "acme_fallback",
        str,
        "mitm",
        "Without a certificate: serve mitmproxy's own (mitm), or close the connection at once (reject).",
        ("mitm", "reject"),
    ),
    Option(
        "acme_unknown_names",
        str,
        "reject",
        "In reverse mode, for a name that no option allows a certificate: close with the TLS alert "
        "unrecognized_name (reject), or serve mitmproxy's own certificate (mitm).",
        ("reject", "mitm"),
    ),
    Option(
        "acme_orders_per_client",
        str,
        "auto",
        "How many new names (which never had a certificate) the clients of one network (IPv4 /24, IPv6 /48) can have "
        "ordered: 20/1h, off for no limit, or auto for 20/1h without counting clients in private networks.",
    ),
    Option(
        "acme_ca",
        _NAMES,
        ("letsencrypt",),
        "CAs in order of preference; if one fails, the next is asked: letsencrypt, letsencrypt-staging, zerossl, "
        "google, google-staging, sslcom, actalis, or the URL of a directory. Each may be followed by its own settings: "
        ";eab_kid=…;eab_hmac_key=env:…;eab_alg=HS384;profile=…;preferred_chain=…;ca_bundle=…;staging=URL (where to "
        "rehearse what has failed; off to never rehearse; Let's Encrypt's is known), and its rate limits, in place of "
        "the known ones: ;orders=300/3h;certificates_per_domain=50/7d;duplicates=5/7d;failed_validations=5/1h, or off "
        "for no limit.",
    ),
    Option("acme_ca_bundle", str, "", "PEM file to trust for the CAs' own HTTPS (private CAs, Pebble)."),
    Option("acme_email", str, "", "Contact e-mail address of the account at each CA."),
    Option(
        "acme_tos_accepted",
        bool,
        False,
        "You accept the CAs' terms of service; without it no account is created.",
    ),
    Option(
        "acme_account_key",
        str,
        "",
        "Your own account key, RSA or EC, as PEM or JWK, by reference: file:/path or env:NAME.",
    ),
    Option("acme_eab_kid", str, "", "External account binding at the first CA: the key identifier from the CA."),
    Option(
        "acme_eab_hmac_key",
        str,
        "",
        "External account binding at the first CA: the HMAC key from the CA (base64url), by reference: env:NAME or "
        "file:/path.",
    ),
    Option(
        "acme_challenges",
        _NAMES,
        ("http-01",),
        "Challenge types in order of preference: http-01, tls-alpn-01, dns-01, dns-account-01, dns-persist-01.",
    ),
    Option(
        "acme_dns_zone",
        str,
        "",
        "A zone, such as acme.example.com, that is delegated to this proxy (mode dns@53), for names whose "
        "_acme-challenge.NAME is an alias (CNAME) of NAME.acme.example.com; not needed if _acme-challenge.NAME itself "
        "is delegated.",
    ),
    Option(
        "acme_dns_nameservers",
        _NAMES,
        (),
        "Host names of this proxy as the NS records that delegate to it write them, so that its answers agree.",
    ),
    Option(
        "acme_dns_provider",
        str,
        "",
        "DNS provider that publishes the records, by its name in dns-lexicon (extra dns), with its credentials in the "
        "environment (LEXICON_…); instead of this proxy as the nameserver.",
    ),
    Option(
        "acme_dns_resolvers",
        _NAMES,
        (),
        "Resolvers that check whether records are visible, such as 192.0.2.1 or 192.0.2.1:5353; by default the "
        "system's.",
    ),
    Option(
        "acme_key_type",
        _NAMES,
        ("ecdsa-p256",),
        "Key type of the certificates: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096. Or two, one of each kind, "
        "the preferred one first: clients that cannot use it are served the other, which is ordered when the first "
        "such client comes (managed certificates: at the start).",
    ),
    Option("acme_profile", str, "", "Certificate profile to order, one of those that the CA offers."),
    Option("acme_preferred_chain", str, "", "Common name of the issuer of the chain to use, if the CA offers several."),
    Option(
        "acme_renew_before",
        str,
        "auto",
        "When to renew: auto (in the window that the CA suggests, else with a third of the lifetime left, or half if "
        "that is under 10 days), a duration before the end such as 14d, or a part of the lifetime such as 25%.",
    ),
    Option(
        "acme_idle",
        str,
        "on",
        "Do not renew an on-demand certificate that no client has asked for; the next client has it renewed, or "
        "obtained again (on). Or renew all (off).",
        ("on", "off"),
    ),
    Option(
        "acme_keep_expired",
        str,
        "30d",
        "How long an expired certificate stays stored, such as 30d, at least 1d; off keeps it for ever. Managed "
        "certificates are never removed.",
    ),
    Option(
        "acme_fail_backoff",
        str,
        "1m,10m,100m,1d",
        "Waits after the 1st, 2nd, … consecutive failure of a name; the last one repeats. A renewal waits at most "
        "about a quarter of the remaining lifetime.",
    ),
    Option(
        "acme_storage",
        str,
        "file:",
        "Where to store certificates: file: (the folder acme in confdir), file:/path, memory:, sqlite:/path.db, or a "
        "server: postgresql:, redis:, consul:, vault:; the documentation describes each URL.",
    ),
    Option(
        "acme_role",
        str,
        "standalone",
        "A standalone node does everything; a control node orders and renews for data nodes; a data node serves and "
        "answers challenges, and never talks to a CA.",
        ("standalone", "control", "data"),
    ),
    Option(
        "acme_storage_key",
        str,
        "",
        "Fernet keys that seal stored records, newest first, by reference: env:NAME or file:/path, separated by "
        "commas.",
    ),
    Option(
        "acme_account_storage_key",
        str,
        "",
        "Fernet keys that seal accounts and compromised keys in place of acme_storage_key, newest first, by reference; "
        "do not give them to data nodes.",
    ),
    Option(
        "acme_storage_sealed_only",
        bool,
        False,
        "Refuse stored certificates and accounts that acme_storage_key has not sealed: they are neither used nor "
        "replaced. mitmproxy-acme check tells when everything is sealed.",
    ),
    Option(
        "acme_tls_profile",
        str,
        "intermediate",
        "TLS settings for our certificates: Mozilla's intermediate or modern, or mitmproxy's own defaults.",
        ("intermediate", "modern", "mitmproxy"),
    ),
    Option(
        "acme_challenge_passthrough",
        bool,
        False,
        "Pass challenge tokens that are not ours to the upstream instead of answering 404.",
    ),
    Option(
        "acme_upstreams",
        _NAMES,
        (),
        "Where the requests for a host go in the reverse modes http, https and http3: one HOST=URL per entry, HOST as "
        "in acme_domains, such as a.example.com=http://127.0.0.1:8001. The upstream gets the client's Host; "
        ";host=app.example.com behind the URL sends another. Allowed names without an entry go to the mode's "
        "own upstream; other hosts get 421.",
    ),
    Option(
        "acme_lazy",
        bool,
        True,
        "Connect to the upstream only when there is a request for it, in the reverse modes http, https, http3 and dns, "
        "so that challenges and handshakes work without it.",
    ),
    Option("acme_cache_size", int, 10_000, "Certificates kept in memory; the least recently used are dropped first."),
    Option(
        "acme_admin_listen",
        str,
        "",
        "Where the admin API, the status page and the metrics listen: an address and port such as 127.0.0.1:8008, or a "
        "Unix socket, unix:/run/mitmproxy-acme/admin.sock; by default nowhere.",
    ),
    Option(
        "acme_admin_token",
        str,
        "",
        "Bearer token of the admin API, by reference: env:NAME or file:/path; required unless its address is loopback "
        "and mitmproxy has only the modes reverse and dns.",
    ),
    Option(
        "acme_webhook",
        str,
        "",
        "URL that receives a JSON document when a certificate is obtained, fails, expires soon, or is removed.",
    ),
    Option(
        "acme_webhook_secret",
        str,
        "",
        "Secret that signs the messages to acme_webhook (HMAC-SHA-256), by reference: env:NAME or file:/path.",
    ),
    Option(
        "acme_deploy_hook",
        str,
        "",
        "Command to run with each certificate that this node obtains, for other servers that need it too.",
    ),
    Option(
        "acme_hide_challenges",
        bool,
        True,
        "Hide answered challenges from mitmproxy's flow list and log, and from other addons; with false they see a "
        "copy of each.",
    ),
    Option(
        "acme_log_format",
        str,
        "text",
        "Format of this addon's log lines: as mitmproxy writes them (text), or one JSON object per line (json).",
        ("text", "json"),
    ),
)

NAMES = frozenset(option.name for option in OPTIONS)
