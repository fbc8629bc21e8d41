"""AccountSession: how callers share one connection and one failure; end_to_end tests what the CA is told."""

import asyncio
import threading

import pytest

from acme_storage import StorageUnavailable
from mitmproxy_acme.ca.account_session import AccountSession
from mitmproxy_acme.ca.known_cas import CaInfo
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.thread_pools import ThreadPools


class Failing:
    """Accounts that cannot be read, each time for another reason; the first read waits for ``told``."""

    def __init__(self) -> None:
        self.asked, self.told = threading.Event(), threading.Event()
        self.times = 0

    def account(self, directory: str) -> Account | None:
        self.times += 1
        self.asked.set()
        self.told.wait(10)
        raise StorageUnavailable(f"{directory}: failure {self.times}")

    def claim_account(self, account: Account) -> Account:
        raise AssertionError

    def save_account(self, account: Account) -> None:
        raise AssertionError

    def delete_account(self, directory: str) -> None:
        raise AssertionError


async def test_a_failure_that_nobody_waited_for_is_forgotten(threads: ThreadPools) -> None:
    """If all callers have left before it failed, the next one connects again, and does not get the old failure."""
    accounts, config = Failing(), Config.from_options({})
    enrolment = AccountSession(config, config.issuers[0], accounts, threads, CaInfo("https://ca.test/directory"))
    waiting = asyncio.create_task(enrolment.ready())
    await asyncio.to_thread(accounts.asked.wait, 10)
    connecting = enrolment._client
    assert connecting is not None
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    accounts.told.set()
    await asyncio.wait([connecting])
    with pytest.raises(StorageUnavailable, match="failure 2"):
        await enrolment.ready()


async def test_visitor_that_leaves_ends_no_connection_of_others(threads: ThreadPools) -> None:
    """Both waited for one connection to the CA; the other one gets what becomes of it."""
    accounts, config = Failing(), Config.from_options({})
    session = AccountSession(config, config.issuers[0], accounts, threads, CaInfo("https://ca.test/directory"))
    leaves, stays = (asyncio.create_task(session.ready()) for _ in range(2))
    await asyncio.to_thread(accounts.asked.wait, 10)
    leaves.cancel()
    await asyncio.wait([leaves])
    accounts.told.set()
    with pytest.raises(StorageUnavailable, match="failure 1"):
        await stays
