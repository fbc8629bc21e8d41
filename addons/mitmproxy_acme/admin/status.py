"""The state of a node as the document of ``/acme/status``, which the page shows too.

This module knows the fields of the document; it must not know where a value is read.
"""

from ..core.backoff import Backoff
from ..store.nodes import Node
from ..store.rate_limiter import Remaining
from .documents import Document, failure_of, timestamp
from .node_state import CaState, NodeState

# The most entries that are listed of each kind, the soonest first; all are counted.
_MOST = 100


def describe_status(state: NodeState) -> Document:
    """Return the document."""
    summary = state.summary
    return {
        "node": _node(state.node, state),
        "nodes": [_node(node, state) for node in state.nodes],
        "cas": [_ca(ca) for ca in state.cas],
        "storage": {
            "kind": state.storage_kind,
            "state": "down" if state.storage_trouble else "ok",
            "error": state.storage_trouble,
        },
        "certificates": {
            "total": summary.total,
            **{kind.value: count for kind, count in summary.counts.items()},
            "complete": state.is_complete,
            "revision": state.revision,
            "soonest_expiry_at": timestamp(summary.soonest_expiry) if summary.soonest_expiry else None,
            "soonest_renewal_at": timestamp(summary.soonest_renewal) if summary.soonest_renewal else None,
        },
        "expiry": [
            {"within_days": days if days != float("inf") else None, "count": count}
            for days, count in summary.expiry.items()
        ],
        "ordering": _ordering(state),
        "failing": _failing(state),
        "failing_total": len(state.failing),
        "unrevoked": _unrevoked(state),
        "cache": {"size": state.cache_size, "limit": state.cache_limit},
    }


def _node(node: Node, state: NodeState) -> Document:
    return {
        "id": node.id,
        "role": node.role,
        "version": node.version,
        "host": node.host,
        "since_at": timestamp(node.since),
        "self": node.id == state.node.id,
    }


def _ca(ca: CaState) -> Document:
    return {
        "name": ca.name,
        "directory": ca.directory,
        "account": ca.account,
        "state": "backing_off" if ca.backoff else "ok",
        "error": ca.backoff.reason if ca.backoff else None,
        "retry_at": timestamp(ca.backoff.until) if ca.backoff else None,
        "budgets": [_budget(remaining) for remaining in ca.budgets],
    }


def _budget(remaining: Remaining) -> Document:
    return {
        "limit": remaining.kind.value,
        "scope": remaining.scope,
        "left": remaining.left,
        "capacity": remaining.limit.capacity,
        "full_at": timestamp(remaining.full_at),
    }


def _ordering(state: NodeState) -> list[Document]:
    oldest = sorted(state.ordering.items(), key=lambda item: item[1])
    return [{"host": id, "since_at": timestamp(since)} for id, since in oldest[:_MOST]]


def _failing(state: NodeState) -> list[Document]:
    soonest = sorted(state.failing.items(), key=lambda item: item[1].until)
    return [failure_of(id, backoff) for id, backoff in soonest[:_MOST]]


def _unrevoked(state: NodeState) -> list[Document]:
    due = Backoff(0, state.at, "its CA is asked now")
    return [failure_of(id, backoff or due) for id, backoff in [*state.unrevoked.items()][:_MOST]]
