"""DNS records: which ones the operator must publish for challenges in DNS, and whether they exist and lead here.

This module knows the configuration, and asks the resolver that it is given; it changes nothing. It blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import filterfalse

import dns.resolver

from ..ca import dns_lookup
from ..ca.challenges.dns_account_01 import label
from ..ca.challenges.dns_persist_01 import is_account_uri, is_issuer, persistent_record
from ..ca.solver import permits
from ..config.config import Config
from ..core.challenge_domains import ChallengeDomain
from ..core.names import ServerName, is_address, is_wildcard, wildcard
from ..core.proof import Proof

# Placeholders for values that are known only once there is an account, or that the CA gives.
_THIS_PROXY, _ACCOUNT, _ISSUER = "HOST-NAME-OF-THIS-PROXY", "URL-OF-THE-ACCOUNT", "NAME-OF-THE-CA"


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish; its string is a line of a zone file."""

    name: str
    type: str
    value: str

    def __str__(self) -> str:
        value = f'"{self.value}"' if self.type == "TXT" else f"{self.value}."
        return f"{self.name}. {self.type} {value}"


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """What the resolver answers about a record: ``trouble`` is a sentence, empty if the record is right."""

    record: Record
    trouble: str = ""


def to_publish(config: Config, *, account_uri: str = "", issuers: Sequence[str] = ()) -> tuple[Record, ...]:
    """Return the records to publish for the names that the options list, in the order in which to publish them.

    ``account_uri`` is the account's URL and ``issuers`` are the CA's own names (``caaIdentities`` of its directory), if
    known. Names that only a pattern allows have no records, because they are not known beforehand.
    """
    hosts = tuple(dict.fromkeys((*_managed_hosts(config), *map(ServerName, sorted(config.policy.exact)))))
    records: list[Record] = []
    if config.answers_dns and hosts:
        accounts = {"dns-01": "", "dns-account-01": label(account_uri) if account_uri else ""}
        domains = [
            ChallengeDomain.for_name(host, account)
            for type, account in accounts.items()
            if type in config.challenges and (account or type == "dns-01")
            for host in hosts
        ]
        records += _delegations(config, domains)
    if "dns-persist-01" in config.challenges:
        records += [_persistent(config, host, account_uri, issuers) for host in hosts]
    return tuple(records)


def check(records: Sequence[Record], resolver: dns.resolver.Resolver, now: float) -> Iterator[PublishedRecord]:
    """Yield what is found for each record; takes seconds if a nameserver is silent.

    The SOA in the answer tells whether a delegation leads to a proxy with this addon, so that proxy must be up.
    """
    troubles = {"NS": _trouble_of_delegation, "CNAME": _trouble_of_alias}
    for record in records:
        if record.type == "TXT":
            yield PublishedRecord(record, _trouble_of_text(record, resolver, now))
        else:
            yield PublishedRecord(record, troubles[record.type](record, resolver))


def _managed_hosts(config: Config) -> Iterator[ServerName]:
    for subject in config.managed:
        for name in filterfalse(is_address, subject.names):
            yield ServerName(name.removeprefix("*.")) if is_wildcard(name) else name


def _delegations(config: Config, domains: Sequence[ChallengeDomain]) -> Iterator[Record]:
    """Yield one delegation of the zone and an alias for each domain; without a zone, a delegation for each domain."""
    servers, zone = config.dns_nameservers or (_THIS_PROXY,), config.dns_zone
    if zone:
        yield from (Record(zone, "NS", server) for server in servers)
    for domain in domains:
        name = str(domain)
        if not zone:
            yield from (Record(name, "NS", server) for server in servers)
        elif not name.endswith(f".{zone}"):  # names in the zone lead here already
            yield Record(name, "CNAME", domain.alias(zone))


def _persistent(config: Config, host: ServerName, account_uri: str, issuers: Sequence[str]) -> Record:
    has_wildcard = any(wildcard(host) in subject.names for subject in config.managed)
    issuer = issuers[0] if issuers and is_issuer(issuers[0]) else _ISSUER
    account = account_uri if is_account_uri(account_uri) else _ACCOUNT
    record = persistent_record(host, issuer, account, wildcard=has_wildcard)
    return Record(record.location, "TXT", record.value)


def _trouble_of_text(record: Record, resolver: dns.resolver.Resolver, now: float) -> str:
    try:
        found = dns_lookup.txt_values(resolver, record.name)
    except dns_lookup.NoAnswer:
        return f"{record.name}: the lookup failed, because no nameserver of its zone answers"
    if _ISSUER in record.value or _ACCOUNT in record.value:
        return "" if found else f"{record.name} has no TXT record"
    wanted = Proof("dns-persist-01", record.name, record.value)
    if any(permits(text, wanted, now) for text in found):
        return ""
    return f"{record.name} has no TXT record that allows this account to order; publish {record}"


def _trouble_of_delegation(record: Record, resolver: dns.resolver.Resolver) -> str:
    leads_here = _leads_here(record.name, resolver)
    if leads_here is None:
        return (
            f"{record.name}: the lookup failed, because its nameserver does not answer; is this proxy up, at port 53?"
        )
    return "" if leads_here else f"{record.name} does not lead to this proxy; publish {record}"


def _trouble_of_alias(record: Record, resolver: dns.resolver.Resolver) -> str:
    found = dns_lookup.canonical_name(resolver, record.name)
    if found == record.value or (found == record.name and _leads_here(record.name, resolver)):
        return ""
    what = "has no alias" if found == record.name else f"is an alias of {found}"
    return f"{record.name} {what}; publish {record}"


def _leads_here(zone: str, resolver: dns.resolver.Resolver) -> bool | None:
    """Say whether a proxy with this addon (``mitm.dns.nameserver``) made the SOA of a zone; None without an answer."""
    try:
        answer = dns_lookup.resolve(resolver, zone, "SOA")
    except dns_lookup.NoAnswer:
        return None
    if answer is None:
        return False
    soa = answer[0]
    return bool(soa.mname == answer.name and soa.rname.to_text() == f"hostmaster.{answer.name}" and soa.minimum == 0)
