"""CAA: whether the owner of a name lets this CA issue (RFC 8659, RFC 8657).

This module knows what the records mean; it must not know how they are fetched.
"""

from collections.abc import Callable, Sequence

from .resolver import Caa

_KNOWN_TAGS = ("issue", "issuewild", "iodef", "contactemail", "contactphone", "issuevmc", "issuemail")


def relevant(name: str, fetch: Callable[[str], list[Caa]]) -> tuple[str, list[Caa]]:
    """Return the nearest domain at or above the name with CAA records, and the records; none if no domain has any.

    RFC 8659 section 3.
    """
    labels = name.removeprefix("*.").split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if records := fetch(domain):
            return domain, records
    return name, []


def refusal(
    records: Sequence[Caa], identities: Sequence[str], account: str, challenges: Sequence[str], *, wildcard: bool
) -> str:
    """Return why a CA of these identities must not issue, or an empty text.

    ``account`` is the account's URL, empty if there is none yet; ``challenges`` are the types by which it may validate.
    """
    if unknown := next((r.tag for r in records if r.critical and r.tag not in _KNOWN_TAGS), None):
        return f"it has a critical property {unknown!r} that CAs do not know"
    issue = [record.value for record in records if record.tag == "issue"]
    wild = [record.value for record in records if record.tag == "issuewild"]
    values = wild if wildcard and wild else issue
    if not values:
        return ""
    ours = [parameters for domain, parameters in map(_parse, values) if domain in identities]
    if not ours:
        allowed = ", ".join(sorted({domain for domain, _ in map(_parse, values) if domain}))
        return f"only {allowed} may issue" if allowed else "no CA may issue"
    if any(_fits(parameters, account, challenge) for parameters in ours for challenge in challenges):
        return ""
    return f"the CA may issue only with {'; '.join(f'{k}={v}' for k, v in ours[0].items())}"


def lock(domain: str, identity: str, account: str, challenges: Sequence[str]) -> str:
    """Return the CAA record, as in a zone file, that lets only this account issue, by these challenges (RFC 8657).

    Without an account, every account at the CA may issue.
    """
    of_account = f"; accounturi={account}" if account else ""
    return f'{domain}. CAA 0 issue "{identity}{of_account}; validationmethods={",".join(challenges)}"'


def _fits(parameters: dict[str, str], account: str, challenge: str) -> bool:
    """Say whether the parameters of RFC 8657 allow us; an account that does not exist yet is not the one required."""
    methods = parameters.get("validationmethods")
    uri = parameters.get("accounturi")
    return (methods is None or challenge in methods.split(",")) and (uri is None or uri == account)


def _parse(value: str) -> tuple[str, dict[str, str]]:
    domain, *parameters = (part.strip() for part in value.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters if "=" in parameter)
    return domain.lower().rstrip("."), {name.strip().lower(): text.strip() for name, _, text in pairs}
