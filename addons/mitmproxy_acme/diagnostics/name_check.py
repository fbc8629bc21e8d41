"""Check the names: whether each leads here, and may have a certificate of this CA.

This module knows which names to check, and in which order; it must not know how each check works.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from acme_storage import StorageError

from ..ca import known_cas
from ..ca.dns_lookup import NoAnswer
from ..config.config import Config
from ..core.names import ServerName, is_address, is_global, is_wildcard, options_for, tls_alpn_server_name
from ..core.proof import Proof
from ..core.rate_limits import registered_domain
from . import caa, ports, tls_alpn_check
from .ca_check import Ca
from .finding import Finding, fail, passed, warn
from .resolver import Resolver
from .storage_check import Stored

# At most so many names are checked, so many at a time: each may take seconds if something is silent.
_MOST_NAMES, _AT_ONCE = 20, 8


def inspect(
    config: Config,
    resolver: Resolver,
    stored: Stored,
    cas: Sequence[Ca],
    at: tuple[int, int] | None,
    chosen: Sequence[ServerName] = (),
) -> Iterator[Finding]:
    """Check ``chosen``, else the managed names and the exact names of ``acme_domains``.

    ``cas`` must have been inspected before. ``at`` are the ports for HTTP and HTTPS; without them none is tried.
    """
    names = list(dict.fromkeys(chosen or _listed(config)))
    for name in (name for name in names if config.subject(name) is None):
        yield fail(f"{name}: no option allows it a certificate; add it to {' or '.join(options_for(name))}")
    if not names:
        return
    with _test_challenge(config, stored) as probe, ThreadPoolExecutor(_AT_ONCE) as pool:

        def check(name: ServerName) -> list[Finding]:
            if is_address(name):
                return list(_ports(config, name, [name], at, probe, stored))
            # A wildcard has no address of its own, and the names below it may have many.
            found = [] if is_wildcard(name) else list(_addresses(config, resolver, name, at, probe, stored))
            return found + (list(_caa(config, resolver, name, cas, stored.accounts)) if cas else [])

        for findings in pool.map(check, names[:_MOST_NAMES]):
            yield from findings
    if (first := next((ca for ca in cas if ca.identities), None)) is not None:
        for domain in sorted({registered_domain(name) for name in names[:_MOST_NAMES] if not is_address(name)}):
            account = stored.accounts.get(first.directory, "")
            record = caa.lock(domain, first.identities[0], account, config.challenges)
            yield passed(f"to let no one else issue for {domain}, publish: {record}")
    if len(names) > _MOST_NAMES:
        yield warn(f"{len(names) - _MOST_NAMES} more names were not checked; name them: mitmproxy-acme check NAME")


def _listed(config: Config) -> list[ServerName]:
    managed = [name for subject in config.managed for name in subject.names]
    return [*managed, *sorted(map(ServerName, config.policy.exact))]


@contextlib.contextmanager
def _test_challenge(config: Config, stored: Stored) -> Iterator[ports.Probe]:
    """Store a challenge where those of orders are, and delete it afterwards."""
    token, answer, unknown = (secrets.token_urlsafe(32) for _ in range(3))
    challenge, store = Proof("http-01", token, answer), stored.store
    if store is not None:
        store.put_proof(challenge)
    try:
        known = token if store is not None else ""
        yield ports.Probe(known, answer, unknown, stored.proxies > 0, config.challenge_passthrough)
    finally:
        if store is not None:
            with contextlib.suppress(StorageError):  # it expires by itself
                store.delete_proof(challenge)


def _addresses(
    config: Config,
    resolver: Resolver,
    name: ServerName,
    at: tuple[int, int] | None,
    probe: ports.Probe,
    stored: Stored,
) -> Iterator[Finding]:
    try:
        addresses = resolver.addresses(name)
    except NoAnswer as error:
        yield fail(f"{name}: {error}; the CA will not find it either")
        return
    if not addresses:
        yield fail(
            f"{name} has no address in DNS; add an A record that leads to the proxy, and AAAA only if IPv6 works too"
        )
        return
    public = next((entry.ca for entry in config.issuers if entry.ca in known_cas.ALIASES), "")
    inner = [address for address in addresses if not is_global(address)]
    if public and inner:
        yield warn(f"{name} is {', '.join(inner)}, which {public} cannot reach; public DNS must have another address")
    else:
        yield passed(f"{name} is {', '.join(addresses)}")
    yield from _ports(config, name, addresses, at, probe, stored)


def _ports(
    config: Config,
    name: ServerName,
    addresses: Sequence[str],
    at: tuple[int, int] | None,
    probe: ports.Probe,
    stored: Stored,
) -> Iterator[Finding]:
    if at is None:
        return
    http_port, https_port = at
    for address in addresses:
        if "http-01" in config.challenges:
            yield ports.check_http(name, address, http_port, probe)
        if "tls-alpn-01" not in config.challenges:
            yield ports.check_https(name, address, https_port, up=probe.up)
    if "tls-alpn-01" in config.challenges:
        with _test_proof(name, stored) as digest:
            for address in addresses:
                yield tls_alpn_check.check(name, address, https_port, digest, up=probe.up)


@contextlib.contextmanager
def _test_proof(name: ServerName, stored: Stored) -> Iterator[str]:
    """Have the proxies show a proof for the name; yields an empty text if an order's proof is there already."""
    proof, store = Proof("tls-alpn-01", tls_alpn_server_name(name), secrets.token_hex(32)), stored.store
    written = store is not None and store.put_test_proof(proof)
    try:
        yield proof.value if written else ""
    finally:
        if written and store is not None:
            with contextlib.suppress(StorageError):  # it expires by itself
                store.delete_proof(proof)


def _caa(
    config: Config, resolver: Resolver, name: ServerName, cas: Sequence[Ca], accounts: Mapping[str, str]
) -> Iterator[Finding]:
    try:
        domain, records = caa.relevant(name, resolver.caa)
    except NoAnswer as error:
        yield fail(f"{name}: its CAA records cannot be read, so CAs will refuse: {error}")
        return
    if not records:
        return
    known = [ca for ca in cas if ca.identities]
    if not known:
        yield warn(
            f"{name}: {domain} has CAA records, and this CA's name in such records is not known; compare them yourself"
        )
        return
    wrong = dict[str, str]()
    for ca in known:
        account, wildcard = accounts.get(ca.directory, ""), is_wildcard(name)
        if refusal := caa.refusal(records, ca.identities, account, config.challenges, wildcard=wildcard):
            wrong[ca.name] = refusal
    if len(wrong) == len(known):
        first = known[0]
        yield fail(f'{name}: CAA of {domain}: {wrong[first.name]}; add: {domain} CAA 0 issue "{first.identities[0]}"')
    elif wrong:
        rest = ", ".join(ca.name for ca in known if ca.name not in wrong)
        yield warn(f"{name}: CAA of {domain} lets {rest} issue, and not {', '.join(wrong)}")
    else:
        yield passed(f"{name}: CAA of {domain} lets the CA issue")
