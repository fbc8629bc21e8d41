"""CAA: whether a name's owner lets this CA issue (RFC 8659, RFC 8657).

This module knows the records' meaning; it must not know how they are fetched.
"""

from collections.abc import Callable, Sequence

from .resolver import Caa

_KNOWN_TAGS = ("issue", "issuewild", "iodef", "contactemail", "contactphone", "issuevmc", "issuemail")


def relevant(name: str, fetch: Callable[[str], list[Caa]]) -> tuple[str, list[Caa]]:
    """Climb to the first name that has records, and return both; no records where none has (RFC 8659 section 3)."""
    labels = name.removeprefix("*.").split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if records := fetch(domain):
            return domain, records
    return name, []


def refusal(
    records: Sequence[Caa], identities: Sequence[str], account: str, challenges: Sequence[str], *, wildcard: bool
) -> str:
    """Return why a CA of these identities must not issue, or nothing.

    ``account`` is the account's URL, empty where there is none yet; ``challenges`` the types by which it may validate.
    """
    if unknown := next((r.tag for r in records if r.critical and r.tag not in _KNOWN_TAGS), None):
        return f"a critical property {unknown!r} that CAs do not know"
    issue = [record.value for record in records if record.tag == "issue"]
    wild = [record.value for record in records if record.tag == "issuewild"]
    values = wild if wildcard and wild else issue
    if not values:
        return ""
    ours = [parameters for domain, parameters in map(_parse, values) if domain in identities]
    if not ours:
        return "only " + (", ".join(sorted({d for d, _ in map(_parse, values) if d})) or "nobody") + " may issue"
    if any(_fits(parameters, account, challenge) for parameters in ours for challenge in challenges):
        return ""
    return f"the CA may issue only with {'; '.join(f'{k}={v}' for k, v in ours[0].items())}"


def lock(domain: str, identity: str, account: str, challenges: Sequence[str]) -> str:
    """Return the record that lets this account alone issue, and by these challenges alone (RFC 8657), as a zone has it.

    Where there is no account yet, whoever has one at the CA may.
    """
    of_account = f"; accounturi={account}" if account else ""
    return f'{domain}. CAA 0 issue "{identity}{of_account}; validationmethods={",".join(challenges)}"'


def _fits(parameters: dict[str, str], account: str, challenge: str) -> bool:
    """Say whether the parameters of RFC 8657 leave room for us; an account that is not made yet is none of theirs."""
    methods = parameters.get("validationmethods")
    uri = parameters.get("accounturi")
    return (methods is None or challenge in methods.split(",")) and (uri is None or uri == account)


def _parse(value: str) -> tuple[str, dict[str, str]]:
    domain, *parameters = (part.strip() for part in value.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters if "=" in parameter)
    return domain.lower().rstrip("."), {name.strip().lower(): text.strip() for name, _, text in pairs}
