"""The rules that keep an order from being placed: which apply to whom, and in which order."""

from types import SimpleNamespace
from typing import Any

import pytest

from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import BackingOff, ClientLimited, LimitReached, NameNotAllowed
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.ordering.order_gate import OrderGate
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest, Requester
from tests.mitmproxy_acme.fakes import EPOCH, Clock, make_certificate

_A = ServerName("a.example.test")
_SUBJECT, _MANAGED = Subject((_A,)), Subject((_A,), managed=True)
_LATER = BackingOff("later", until=EPOCH + 60)


class Rules:
    """Stand in for the parts that know a rule each: keep what they are asked, and refuse as they are told."""

    def __init__(self, clock: Clock, *directories: str, ask: bool = True) -> None:
        self.asked = list[Any]()
        self.refusals = dict[str, Exception]()
        backoffs: Any = SimpleNamespace(
            active_backoff=lambda subject: self._note("backoff", found=self.refusals.get("backoff")),
            note_served=lambda subject, until: self._note(("served", until)),
            load=self._load,
            remember=lambda stored: self._note(("remember", stored)),
            is_available=lambda subject, directory: True,
        )
        limits: Any = SimpleNamespace(find=self._find_limit, log=lambda *said: self._note(("logged", said[0])))
        admission: Any = SimpleNamespace(
            require_client=lambda subject, client: self._require(f"client {client}"),
            admit=lambda subject, client: self._require(f"admit {client}"),
        )
        asking: Any = SimpleNamespace(require=self._ask)
        self.exhausted = dict[str, float]()
        cas: Any = tuple(SimpleNamespace(directory=directory, name=directory) for directory in directories)
        self.gate = OrderGate(cas, backoffs, limits, admission, asking if ask else None, clock)

    def _find_limit(self, directory: str, subject: Subject) -> Any:
        until = self.exhausted.get(directory)
        refusal = LimitReached(f"used up at {directory}", until=until or 0.0)
        found = SimpleNamespace(until=until, refusal=lambda *_: refusal) if until is not None else None
        return self._note("limits", found)

    def _note(self, what: Any, found: Any = None) -> Any:
        self.asked.append(what)
        return found

    def _require(self, what: str) -> None:
        self.asked.append(what)
        if (refusal := self.refusals.get(what.partition(" ")[0])) is not None:
            raise refusal

    async def _load(self, subject: Subject) -> None:
        self.asked.append("load")

    async def _ask(self, name: ServerName, *, anew: bool) -> None:
        self._require(f"ask {anew}")


@pytest.fixture
def rules(clock: Clock) -> Rules:
    return Rules(clock, "https://ca.test/")


@pytest.mark.parametrize(
    ("subject", "requester", "is_stored", "asked"),
    [
        (_SUBJECT, Requester.VISITOR, False, ["backoff", "client c", "limits", "ask False", "admit c"]),
        (_SUBJECT, Requester.VISITOR, True, [("served", EPOCH + DAY), "backoff", "ask False"]),
        (_SUBJECT, Requester.OPERATOR, False, ["backoff", "ask False"]),
        (_SUBJECT, Requester.PERSON, False, ["backoff", "ask True"]),
        (_MANAGED, Requester.OPERATOR, False, ["backoff"]),
        (_MANAGED, Requester.PERSON, True, [("served", EPOCH + DAY), "backoff"]),
    ],
)
async def test_each_request_meets_its_rules_in_order(
    rules: Rules, subject: Subject, requester: Requester, is_stored: bool, asked: list[object]
) -> None:
    """A client is counted last, once nothing else speaks against its new name."""
    replacing = make_certificate([_A], lifetime=DAY) if is_stored else None
    await rules.gate.require(OrderRequest(subject, requester, replacing, "c"), 1)
    assert rules.asked == asked


@pytest.mark.parametrize(
    ("rule", "error", "last"),
    [
        ("backoff", _LATER, "backoff"),
        ("client", ClientLimited("too many", until=EPOCH + 1), "client c"),
        ("ask", NameNotAllowed("no"), "ask False"),
        ("admit", _LATER, "admit c"),
    ],
)
async def test_first_rule_that_refuses_is_the_last_that_is_asked(
    rules: Rules, rule: str, error: Exception, last: str
) -> None:
    rules.refusals[rule] = error
    with pytest.raises(type(error)) as caught:
        await rules.gate.require(OrderRequest(_SUBJECT, Requester.VISITOR, None, "c"), 1)
    assert caught.value is error
    assert rules.asked[-1] == last


async def test_certificate_that_has_ended_is_not_served_meanwhile(rules: Rules, clock: Clock) -> None:
    """So the backoff of its name need not end in time for it."""
    ended = make_certificate([_A], lifetime=DAY)
    clock.time = ended.not_after
    await rules.gate.require(OrderRequest(_SUBJECT, Requester.OPERATOR, ended), 1)
    assert rules.asked == ["backoff", "ask False"]


@pytest.mark.parametrize("under_way", [1_000, 1_001])
async def test_visitors_bring_no_new_name_while_many_are_ordered(rules: Rules, under_way: int) -> None:
    """A thousand, this one included; the operator's own are ordered all the same."""
    request = OrderRequest(_SUBJECT, Requester.VISITOR, None, "c")
    if under_way == 1_001:
        with pytest.raises(BackingOff, match="1000 names are being ordered already") as caught:
            await rules.gate.require(request, under_way)
        assert (caught.value.until, rules.asked) == (EPOCH, ["backoff"])
    else:
        await rules.gate.require(request, under_way)
    await rules.gate.require(OrderRequest(_SUBJECT, Requester.OPERATOR), 5_000)


async def test_without_a_url_nobody_is_asked(clock: Clock) -> None:
    rules = Rules(clock, "https://ca.test/", ask=False)
    await rules.gate.require(OrderRequest(_SUBJECT, Requester.VISITOR, None, "c"), 1)
    assert rules.asked == ["backoff", "client c", "limits", "admit c"]


async def test_failures_of_other_nodes_are_read_before_they_count(rules: Rules) -> None:
    """From the storage while another node has the lease, and under the lease as they were read there."""
    await rules.gate.require_in_storage(_SUBJECT)
    stored = {"a.example.test": Backoff(1, EPOCH + 60, "no")}
    rules.gate.require_with(_SUBJECT, stored)
    assert rules.asked == ["load", "backoff", ("remember", stored), "backoff"]
    rules.refusals["backoff"] = _LATER
    with pytest.raises(BackingOff):
        await rules.gate.require_in_storage(_SUBJECT)
    with pytest.raises(BackingOff):
        rules.gate.require_with(_SUBJECT, {})


@pytest.mark.parametrize(
    ("exhausted", "refuses"),
    [
        ({}, ""),
        ({"one": 9.0}, ""),
        ({"two": 9.0}, ""),
        ({"one": 9.0, "two": 5.0}, "two"),
        ({"one": 4.0, "two": 5.0}, "one"),
    ],
)
async def test_limit_refuses_where_no_ca_has_any_left(clock: Clock, exhausted: dict[str, float], refuses: str) -> None:
    """Another CA may have; where none has, the refusal is that of the first that will."""
    rules = Rules(clock, "one", "two", ask=False)
    rules.exhausted = exhausted
    request = OrderRequest(_SUBJECT, Requester.VISITOR, None, "c")
    if not refuses:
        await rules.gate.require(request, 1)
        assert rules.asked == ["backoff", "client c", "limits", "limits", "admit c"]
        return
    with pytest.raises(LimitReached, match=f"used up at {refuses}"):
        await rules.gate.require(request, 1)
    assert rules.asked[-1] == ("logged", refuses)
