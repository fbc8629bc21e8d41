"""What becomes of a certificate that was found: stored where the options look it up, or left, with the reason."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.cli.importers.importer import Importer, ImportOutcome, ImportResult
from mitmproxy_acme.cli.importers.item import FoundCertificate, Rejected
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.certificate_writer import CertificateWriter
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, RSA_KEY, UNSEALED, Clock, make_certificate

OTHER = "https://ca.test/directory"
SECOND = "https://second.test/directory"
WIDE = {"acme_domains": ("**.example.test",)}


class ImportTarget:
    """An importer, and the content of its storage."""

    def __init__(self, memory: Memory, **given: Any) -> None:
        dry = given.pop("dry", False)
        config = Config.from_options({"acme_tos_accepted": True} | given)
        self.memory = memory
        self.store = Store(memory, UNSEALED)
        self.calendar = RenewalSchedule(memory)
        self.intake = Importer(
            config,
            [DIRECTORY, SECOND],
            CertificateWriter(self.store, self.calendar, ChangeFeed(memory, "import")),
            EPOCH,
            dry=dry,
        )

    def take(self, certificate: Certificate) -> ImportResult:
        return self.intake.take(FoundCertificate(certificate.id, certificate))

    def stored(self, name: str) -> Certificate | None:
        return self.store.slot(ServerName(name)).certificate

    def at(self, name: str) -> float:
        """When the renewer looks at it."""
        (at,) = (entry.at for entry in self.calendar.due_by(EPOCH + 400 * DAY) if entry.id == name)
        return at


def test_each_kind_of_key_is_found_where_its_clients_look(memory: Memory) -> None:
    """With two kinds of keys, an import is stored under its own kind; with one, under the plain name."""
    name, of_rsa = "a.example.test", make_certificate(["a.example.test"], key=RSA_KEY)
    target = ImportTarget(memory, **WIDE, acme_certificates=(name,), acme_key_type=("ecdsa-p256", "rsa-2048"))
    assert target.take(of_rsa).name == f"{name}+rsa"
    assert target.stored(name) is None
    of_ecdsa = make_certificate([name])
    assert target.take(of_ecdsa).name == name
    for id, certificate in [(name, of_ecdsa), (f"{name}+rsa", of_rsa)]:
        stored = target.stored(id)
        assert stored is not None
        assert stored.fingerprint == certificate.fingerprint
    other = ImportTarget(Memory(), **WIDE)
    assert other.take(of_rsa).name == name


def test_each_name_is_found_on_demand(memory: Memory) -> None:
    """A certificate of several names is stored under each name that the options allow, where handshakes find it."""
    target = ImportTarget(memory, **WIDE)
    certificate = make_certificate(["a.example.test", "b.example.test", "elsewhere.test"])
    taken = target.take(certificate)
    assert taken == ImportResult(
        ImportOutcome.IMPORTED, "a.example.test (+1)", "valid until 2027-04-15, issued by Fake Issuer"
    )
    for name in ("a.example.test", "b.example.test"):
        stored = target.stored(name)
        assert stored is not None
        assert (stored.id, stored.fingerprint, stored.ca) == (name, certificate.fingerprint, DIRECTORY)
    assert target.stored("elsewhere.test") is None
    assert target.memory.keys("certificates/") == ["certificates/a.example.test", "certificates/b.example.test"]


def test_managed_certificate_lies_under_its_first_name(memory: Memory) -> None:
    """If acme_certificates lists its names together, it is stored as that certificate, in any order of names."""
    target = ImportTarget(memory, acme_certificates=("www.example.test,example.test",))
    taken = target.take(make_certificate(["example.test", "www.example.test"]))
    assert (taken.outcome, taken.name) == (ImportOutcome.IMPORTED, "www.example.test")
    assert target.memory.keys("certificates/") == ["certificates/www.example.test"]


def test_managed_certificate_wants_all_its_names(memory: Memory) -> None:
    """A certificate without one of the listed names would not serve; the reason names what is missing."""
    target = ImportTarget(memory, acme_certificates=("a.example.test,b.example.test",))
    taken = target.take(make_certificate(["a.example.test"]))
    assert taken == ImportResult(
        ImportOutcome.LEFT, "a.example.test", "it lacks b.example.test, which acme_certificates lists with it"
    )
    assert target.memory.keys("") == []


def test_name_that_no_option_allows(memory: Memory) -> None:
    """What the proxy would never look up is not stored."""
    taken = ImportTarget(memory, **WIDE).take(make_certificate(["elsewhere.test"]))
    why = "not included in acme_domains or acme_certificates"
    assert taken == ImportResult(ImportOutcome.LEFT, "elsewhere.test", why)
    assert memory.keys("") == []


def test_wildcard(memory: Memory) -> None:
    """A wildcard serves the names that the options list under it, and is unusable where they list none."""
    certificate = make_certificate(["*.example.test"])
    taken = ImportTarget(memory, **WIDE).take(certificate)
    assert taken.outcome is ImportOutcome.UNUSABLE
    assert taken.what.startswith("acme_certificates lists neither this wildcard")
    assert memory.keys("") == []

    target = ImportTarget(
        memory, acme_domains=("a.example.test",), acme_certificates=("b.example.test,c.example.test",)
    )
    assert target.take(certificate).name == "a.example.test (+1)"
    assert memory.keys("certificates/") == ["certificates/a.example.test", "certificates/b.example.test"]


def test_names_that_no_client_can_ask_for(memory: Memory) -> None:
    taken = ImportTarget(memory, acme_allow_any_domain=True).take(make_certificate(["a_b.example.test"]))
    assert taken == ImportResult(ImportOutcome.UNUSABLE, "a_b.example.test", "no client can ask for any of its names")


def test_expired_is_left(memory: Memory) -> None:
    """What has expired is not stored, and says when."""
    taken = ImportTarget(memory, **WIDE).take(
        make_certificate(["a.example.test"], now=EPOCH - 10 * DAY, lifetime=10 * DAY)
    )
    assert taken == ImportResult(ImportOutcome.LEFT, "a.example.test", "it expired on 2027-01-15")
    assert memory.keys("") == []


def test_reasons_of_the_reader(memory: Memory) -> None:
    """Unreadable items are unusable, foreign ones are skipped."""
    target = ImportTarget(memory, **WIDE)
    assert target.intake.take(Rejected("a", "why")) == ImportResult(ImportOutcome.UNUSABLE, "a", "why")
    assert target.intake.take(Rejected("a", "why", foreign=True)) == ImportResult(ImportOutcome.LEFT, "a", "why")


def test_twice_changes_nothing(memory: Memory) -> None:
    """The second import writes nothing at all."""
    certificate = make_certificate(["a.example.test", "b.example.test"])
    ImportTarget(memory, **WIDE).take(certificate)
    before = {key: memory.get(key) for key in memory.keys("")}
    taken = ImportTarget(memory, **WIDE).take(certificate)
    assert taken == ImportResult(ImportOutcome.LEFT, "a.example.test", "it is stored already")
    assert {key: memory.get(key) for key in memory.keys("")} == before


@pytest.mark.parametrize(
    ("stored", "found", "outcome"),
    [
        ((DIRECTORY, 30), (DIRECTORY, 60), ImportOutcome.IMPORTED),
        ((DIRECTORY, 60), (DIRECTORY, 30), ImportOutcome.LEFT),
        ((DIRECTORY, 30), (OTHER, 60), ImportOutcome.LEFT),  # it would only be replaced
        ((OTHER, 60), (DIRECTORY, 30), ImportOutcome.IMPORTED),
        ((OTHER, 60), (OTHER, 30), ImportOutcome.LEFT),
        ((DIRECTORY, -1), (OTHER, 30), ImportOutcome.IMPORTED),
    ],
)
def test_better_one_stays(
    memory: Memory, stored: tuple[str, int], found: tuple[str, int], outcome: ImportOutcome
) -> None:
    """Of the stored one and the found one the options' CA's stays, and of two of the same the longer-lived."""
    target = ImportTarget(memory, **WIDE)
    old, new = (
        make_certificate(["a.example.test"], now=EPOCH - 30 * DAY, lifetime=(30 + days) * DAY, ca=ca)
        for ca, days in (stored, found)
    )
    assert target.store.replace(target.store.slot(ServerName("a.example.test")), old)
    assert target.take(new).outcome is outcome
    kept = target.stored("a.example.test")
    assert kept is not None
    assert kept.fingerprint == (new if outcome is ImportOutcome.IMPORTED else old).fingerprint


def test_broken_record_is_replaced(memory: Memory) -> None:
    """A record that cannot be read is replaced."""
    memory.put("certificates/a.example.test", b"junk")
    target = ImportTarget(memory, **WIDE)
    assert target.take(make_certificate(["a.example.test"])).outcome is ImportOutcome.IMPORTED
    assert target.stored("a.example.test") is not None


def test_record_that_no_key_opens_stays(memory: Memory) -> None:
    """What is sealed by a key that is not given is not written over."""
    sealed = Store(memory, RecordCipher([Fernet.generate_key().decode()]))
    certificate = make_certificate(["a.example.test"], lifetime=DAY)
    assert sealed.replace(sealed.slot(certificate.id), certificate)
    before = {key: memory.get(key) for key in memory.keys("")}
    taken = ImportTarget(memory, **WIDE).take(make_certificate(["a.example.test"]))
    assert taken.outcome is ImportOutcome.UNUSABLE
    assert taken.what.startswith("another record is in its place: the record certificates/a.example.test is sealed")
    assert {key: memory.get(key) for key in memory.keys("")} == before


def test_unknown_ca_counts_as_ours(memory: Memory) -> None:
    """It is served until it is due; a known one that is not ours is said to be another's."""
    target = ImportTarget(memory, **WIDE)
    assert not target.take(make_certificate(["a.example.test"], ca="")).other_ca
    assert target.take(make_certificate(["b.example.test"], ca=OTHER)).other_ca
    assert not target.take(make_certificate(["c.example.test"], ca=SECOND)).other_ca
    assert [found.ca for name in "ab" if (found := target.stored(f"{name}.example.test"))] == [DIRECTORY, OTHER]


def test_listed_for_renewal(memory: Memory) -> None:
    """Ours is looked at as every new one is, to ask for its window; another CA's when it is due, and not before."""
    target = ImportTarget(memory, **WIDE)
    target.take(make_certificate(["a.example.test"]))
    target.take(make_certificate(["b.example.test"], ca=OTHER))
    assert EPOCH < target.at("a.example.test") < EPOCH + 0.25 * DAY
    assert target.at("b.example.test") == EPOCH + 60 * DAY


def noting[**P, T](order: list[str], real: Callable[P, T]) -> Callable[P, T]:
    """The same call, which notes the key that it is for."""

    def noted(*arguments: P.args, **more: P.kwargs) -> T:
        order.append(str(arguments[0]))
        return real(*arguments, **more)

    return noted


def test_listed_before_it_is_stored_and_told_to_the_nodes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between any two writes, every stored certificate is renewed; running nodes learn of it."""
    order: list[str] = []
    for method in ("put", "swap"):
        monkeypatch.setattr(memory, method, noting(order, getattr(memory, method)))
    ImportTarget(memory, **WIDE).take(make_certificate(["a.example.test"]))
    assert [key.partition("/")[0] for key in order] == ["calendar", "certificates", "changes"]
    assert ChangeFeed(memory, "another").read_new(EPOCH) == ["a.example.test"]


def test_another_node_that_was_faster(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a running proxy stored meanwhile is not overwritten by less."""
    target = ImportTarget(memory, **WIDE)
    renewed = make_certificate(["a.example.test"], lifetime=200 * DAY)
    real = target.calendar.add
    monkeypatch.setattr(
        RenewalSchedule,
        "add",
        lambda self, entry: (target.store.replace(target.store.slot(renewed.id), renewed), real(entry))[1],
    )
    taken = target.take(make_certificate(["a.example.test"]))
    assert taken == ImportResult(ImportOutcome.LEFT, "a.example.test", "the stored one is valid until 2027-08-03")


def test_dry_run_writes_nothing(memory: Memory, clock: Clock) -> None:
    """It says the same, of several for one name too, and the storage stays empty."""
    certificates = [make_certificate(["a.example.test"], lifetime=days * DAY) for days in (30, 60, 40)]
    dry = [ImportTarget(memory, **WIDE, dry=True)]
    said = [dry[0].take(certificate) for certificate in certificates]
    assert memory.keys("") == []
    wet = ImportTarget(memory, **WIDE)
    assert said == [wet.take(certificate) for certificate in certificates]
    assert [taken.outcome for taken in said] == [ImportOutcome.IMPORTED, ImportOutcome.IMPORTED, ImportOutcome.LEFT]


def test_address_is_found_where_it_is_wanted(memory: Memory) -> None:
    """A certificate for an address is stored under the canonical text of the address."""
    certificate = make_certificate(["2001:db8::1", "a.example.test"])
    wanting = ImportTarget(memory, acme_ip_certificates=True)
    assert wanting.take(certificate).outcome is ImportOutcome.IMPORTED
    assert wanting.stored("2001:db8::1") is not None
    alone = ImportTarget(Memory(), **WIDE).take(make_certificate(["192.0.2.1"]))
    assert alone.what == "not included in acme_ip_certificates or acme_certificates"


def test_what_is_not_valid_yet_is_left(memory: Memory) -> None:
    """It would take the place of one that clients accept."""
    target, name = ImportTarget(memory, **WIDE), "a.example.test"
    taken = target.take(make_certificate([name], now=EPOCH + DAY))
    assert (taken.outcome, taken.what) == (ImportOutcome.LEFT, "it is not valid yet")
    assert target.stored(name) is None
