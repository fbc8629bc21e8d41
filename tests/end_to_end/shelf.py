"""A storage with certificates in it before any proxy starts: as many as wanted, in every state.

Knows records; must not know who reads them.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from acme_storage import Storage
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.keys import CERTIFICATES_PREFIX
from mitmproxy_acme.store.store import Slot, Store
from tests.mitmproxy_acme.fakes import UNSEALED, make_certificate

# The CA of all that lies here: nothing listens there, so that no request leaves this machine.
NO_CA = "https://localhost:9/directory"

# state -> days since it was issued, of 90
AGES = {"valid": 10.0, "due": 60.5, "expiring": 75.0, "expired": 91.0}


def aged(name: str, state: str = "valid", *, issuer: str = "Fake Issuer", others: Iterable[str] = ()) -> Certificate:
    """Sign a certificate that is in this state now."""
    now = int(time.time() - AGES[state] * DAY)
    return make_certificate([name, *others], now=now, lifetime=90 * DAY, ca=NO_CA, issuer_name=issuer)


def put(storage: Storage, certificate: Certificate) -> None:
    assert Store(storage, UNSEALED).replace(Slot(None, None), certificate)


def fail(storage: Storage, name: str, reason: str, *, failures: int = 2, seconds: float = 600) -> None:
    """Leave a name alone for so long."""
    Store(storage, UNSEALED).save_backoff(name, Backoff(failures, time.time() + seconds, reason))


def put_many(storage: Storage, count: int, zone: str, *, every: int = 100) -> None:
    """Store so many, named n00000.ZONE and on; one in ``every`` has expired. They share two records, for speed."""
    valid, expired = (aged(f"shared.{zone}", state).to_record() for state in ("valid", "expired"))

    def put_one(number: int) -> None:
        record = valid if number % every else expired
        storage.put(f"{CERTIFICATES_PREFIX}n{number:05}.{zone}", record, ttl=DAY)  # what expires is written faster

    with ThreadPoolExecutor(4) as writers:
        for _ in writers.map(put_one, range(count)):
            pass
