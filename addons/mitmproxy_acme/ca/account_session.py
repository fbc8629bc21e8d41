"""AccountSession: our account at one CA (RFC 8555 section 7.3): load, create, change or deactivate it.

This module knows the life of the account and the connection that signs for it; it must not know orders. Several
processes share one account: if the CA refuses what this one knows, it reads the account from storage again.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import josepy as jose

from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.account import Account
from ..core.errors import AccountUnknown, IssuanceError, IssuerUnavailable, NameRefused, Problem, SettingsRefused
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from . import problems
from .client import Client
from .external_account_binding import ExternalAccountBinding, request_binding
from .http.deadline import Timeout
from .http.network import PATIENT
from .key_generation import load_account_key, new_account_key, thumbprint
from .known_cas import CaInfo

logger = logging.getLogger(__name__)

_DIRECTORY_LIFE = 86_400.0  # a proxy runs for longer than CAs keep their URLs
# What CAs answer to a signature with an old account key: RFC 8555 section 6.2 leaves the type open, and acme2certifier
# 0.46 sends a sentence of its own there.
_OTHER_KEY = ("unauthorized", "malformed")
_NEW_TERMS = "userActionRequired"


class AccountStore(Protocol):
    """Where accounts are stored. Every method blocks, and raises ``RecordRefused`` if a record must not be replaced."""

    def account(self, directory: str) -> Account | None: ...

    def claim_account(self, account: Account) -> Account:
        """Store it unless one with a key is stored already; return the stored one."""
        ...

    def save_account(self, account: Account) -> None: ...

    def delete_account(self, directory: str) -> None: ...


class AccountSession:
    """One account at one CA. Use it from one event loop; every method raises ``IssuanceError`` and ``StorageError``."""

    def __init__(
        self,
        config: Config,
        entry: CaSettings,
        accounts: AccountStore,
        threads: ThreadPools,
        ca_info: CaInfo,
        timeout: Timeout = PATIENT,
    ) -> None:
        """``entry`` holds the options about ``ca_info``; ``timeout`` is that of ``Network``.

        Raises ``ConfigError`` for an account key that cannot be used.
        """
        self._config = config
        self._entry = entry
        self._accounts = accounts
        self._threads = threads
        self._name = entry.ca
        self._ca_info = ca_info
        self._directory = ca_info.directory
        self._timeout = timeout
        self._own_key = load_account_key(config.account_key) if config.account_key else None
        self._client: asyncio.Task[Client] | None = None
        self._connected_at = 0.0

    async def ready(self) -> Client:
        """Connect, and create the account if needed, once for any number of callers."""
        return await self._connected()

    async def call_with_account[T](self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return what ``work`` returns for the client. If the account has changed, repair the client and try once more.

        The account has changed if the CA has lost it (after a reset: the same key is registered again), if another
        process has changed its key, or if there are new terms of service, which ``acme_tos_accepted`` accepts.
        """
        client = await self._connected()
        try:
            return await work(client)
        except (SettingsRefused, NameRefused, IssuerUnavailable) as error:
            if (repaired := await self._repaired(client, error)) is None:
                if isinstance(error, IssuerUnavailable):
                    self._client = None  # its directory may be out of date
                raise
            result = await work(repaired)
            await self._settle(repaired)
            return result

    async def change_key(self) -> None:
        """Give the account a new key (section 7.3.5).

        Both keys are stored before the CA is asked, so that one of them is right whatever happens.
        """
        if self._own_key is not None:
            raise SettingsRefused("acme_account_key is your own key, which cannot be changed here; leave it out first")
        await self._require_account()
        client = await self._connected()
        if not client.changes_keys:
            raise SettingsRefused(f"{self._name} does not support changing account keys; the account keeps its key")
        account, _ = await self._account()
        new = new_account_key()
        await self._threads.storage(
            self._accounts.save_account, dataclasses.replace(account, next_key=new.json_dumps())
        )
        await self._threads.issuer(client.change_key, new)
        await self._settle(client)
        self._client = None
        logger.info("account at %s: the key is changed", self._name, extra=self._fields("account_key_changed"))

    async def deactivate(self) -> None:
        """Deactivate the account for ever (section 7.3.6); certificates stay valid. The next order creates another."""
        await self._require_account()
        client = await self._connected()
        await self._threads.issuer(client.deactivate)
        await self._threads.storage(self._accounts.delete_account, self._directory)
        self._client = None
        logger.warning("account at %s: deactivated", self._name, extra=self._fields("account_deactivated"))

    async def _require_account(self) -> None:
        """Raise unless the account exists; with an operator's own key only the CA knows."""
        stored = await self._threads.storage(self._accounts.account, self._directory)
        if self._own_key is None and (stored is None or not stored.uri):
            raise SettingsRefused(f"there is no account at {self._name}; the first order creates one")

    async def _repaired(self, client: Client, error: IssuanceError) -> Client | None:
        """Return a client for the account as it is now; None if the refusal has another reason."""
        problem = error.problem.type if error.problem else ""
        if _may_mean_another_key(error.problem) and (current := await self._with_current_key(client)) is not None:
            return current
        if isinstance(error, AccountUnknown):
            logger.warning(
                "%s does not know our account any more; registering its key again",
                self._name,
                extra=self._fields("account_lost"),
            )
            return await self._connected(instead_of=client, forgotten=True)
        if problem == _NEW_TERMS and self._config.tos_accepted:
            logger.warning("%s has new terms of service, which acme_tos_accepted accepts: %s", self._name, error)
            await self._threads.issuer(client.agree_to_terms)
            return client
        return None

    async def _with_current_key(self, client: Client) -> Client | None:
        """Return a client with the stored key, or the next one, if it is not the key of ``client``."""
        stored = await self._threads.storage(self._accounts.account, self._directory)
        if stored is None or self._own_key is not None:
            return None
        for key in (stored.key, stored.next_key):
            if key and thumbprint(loaded := jose.JWK.json_loads(key)) != thumbprint(client.key):
                logger.info("account at %s: it has a new key", self._name, extra=self._fields("account_key_changed"))
                return await self._connected(instead_of=client, key=loaded)
        return None

    async def _settle(self, client: Client) -> None:
        """Store the key that the CA has accepted as the account's key, and drop the previous one."""
        stored = await self._threads.storage(self._accounts.account, self._directory)
        mark = thumbprint(client.key)
        if stored is not None and stored.next_key and thumbprint(jose.JWK.json_loads(stored.next_key)) == mark:
            settled = dataclasses.replace(stored, key=stored.next_key, next_key="", thumbprint=mark)
            await self._threads.storage(self._accounts.save_account, settled)

    async def _connected(
        self, *, instead_of: Client | None = None, forgotten: bool = False, key: jose.JWK | None = None
    ) -> Client:
        """Return the client, connecting once for any number of callers; a failure is shared, but not cached."""
        task = self._client if time.monotonic() - self._connected_at < _DIRECTORY_LIFE else None
        if task is None or (instead_of is not None and task.done() and task.result() is instead_of):
            connect = self._connect(forgotten=forgotten, key=key)
            task = self._client = asyncio.get_running_loop().create_task(connect)
            task.add_done_callback(self._forget_failure)
            self._connected_at = time.monotonic()
        return await asyncio.shield(task)

    def _forget_failure(self, connecting: asyncio.Task[Client]) -> None:
        # A callback: those who waited may all have left, and the next caller must not get the old failure.
        failed = connecting.cancelled() or connecting.exception() is not None
        if failed and self._client is connecting:
            self._client = None

    async def _connect(self, *, forgotten: bool, key: jose.JWK | None) -> Client:
        account, stored_key = await self._account()
        client = await self._threads.issuer(
            Client.connect, self._name, self._directory, key or stored_key, self._entry.ca_bundle, self._timeout
        )
        if forgotten or not account.uri:
            account = await self._register(client, account)
        client.use(account.uri)
        if account.contact != self._config.email:
            account = await self._change_contact(client, account)
        return client

    async def _register(self, client: Client, account: Account) -> Account:
        if not self._config.tos_accepted:
            raise SettingsRefused(f"acme_tos_accepted is not set, so no account is created at {self._name}")
        account, binding = await self._with_binding(account)
        email = self._config.email
        try:
            uri = await self._threads.issuer(client.register, email, binding)
        except (SettingsRefused, NameRefused):
            if account.eab_kid:  # the binding may be the reason: the next attempt asks for another
                unbound = dataclasses.replace(account, eab_kid="", eab_hmac_key="")
                await self._threads.storage(self._accounts.save_account, unbound)
            raise
        account = dataclasses.replace(account, uri=uri, contact=email, next_key="")
        await self._threads.storage(self._accounts.save_account, account)
        logger.info("account at %s: %s", self._name, uri, extra=self._fields("account_created"))
        return account

    async def _with_binding(self, account: Account) -> tuple[Account, ExternalAccountBinding | None]:
        """Return the account and its binding: from the options, else from the CA, stored or new; None if not needed.

        A new one is stored before it is used: CAs give a different one each time, and may limit their number.
        """
        entry = self._entry
        if entry.eab_kid:
            return account, ExternalAccountBinding(entry.eab_kid, entry.eab_hmac_key, entry.eab_alg)
        if not self._ca_info.gives_binding(entry):
            return account, None
        if not account.eab_kid:
            given = await self._threads.issuer(
                request_binding, self._name, self._ca_info.binding_url, entry.email, self._timeout, entry.ca_bundle
            )
            account = dataclasses.replace(account, eab_kid=given.kid, eab_hmac_key=given.hmac_key)
            await self._threads.storage(self._accounts.save_account, account)
            logger.info(
                "%s gave an external account binding for %s", self._name, entry.email, extra=self._fields("bound")
            )
        return account, ExternalAccountBinding(account.eab_kid, account.eab_hmac_key)

    async def _change_contact(self, client: Client, account: Account) -> Account:
        """Tell the CA the contact of the options (section 7.3.2). A refusal is only logged: no order depends on it."""
        try:
            await self._threads.issuer(client.change_contact, self._config.email)
        except (SettingsRefused, NameRefused) as error:
            logger.warning("account at %s: the contact was not changed: %s", self._name, error)
            return account
        changed = dataclasses.replace(account, contact=self._config.email)
        await self._threads.storage(self._accounts.save_account, changed)
        logger.info("account at %s: the contact is changed", self._name, extra=self._fields("account_changed"))
        return changed

    def _fields(self, event: str) -> dict[str, dict[str, object]]:
        return fields(event, ca=self._name)

    async def _account(self) -> tuple[Account, jose.JWK]:
        """Return the account and its key: the operator's own, the stored one, or a new one, which is stored first."""
        stored = await self._threads.storage(self._accounts.account, self._directory)
        if self._own_key is not None:
            mark = thumbprint(self._own_key)
            kept = stored if stored and stored.thumbprint == mark else None
            return kept or Account(self._directory, mark), self._own_key
        if stored is None or not stored.key:
            key = new_account_key()
            new = Account(self._directory, thumbprint(key), key=key.json_dumps())
            stored = await self._threads.storage(self._accounts.claim_account, new)
        try:
            return stored, jose.JWK.json_loads(stored.key)
        except (jose.Error, ValueError, TypeError, KeyError) as error:
            raise SettingsRefused(
                f"the stored account key for {self._name} cannot be read ({type(error).__name__}); "
                "delete that record, and a new account is created"
            ) from None


def _may_mean_another_key(problem: Problem | None) -> bool:
    if problem is None:
        return False
    return problem.type in _OTHER_KEY or (problem.type not in problems.MEANINGS and 400 <= problem.status < 500)
