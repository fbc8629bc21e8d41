"""All targets, by what they read. A new one is added to a module here, and to the tuple of that module."""

from ..target import Target
from . import admin, ca, certificates, dns, http, importers, names, options, storage, stored, tls

TARGETS: tuple[Target, ...] = (
    *names.TARGETS,
    *tls.TARGETS,
    *dns.TARGETS,
    *http.TARGETS,
    *admin.TARGETS,
    *storage.TARGETS,
    *stored.TARGETS,
    *certificates.TARGETS,
    *ca.TARGETS,
    *options.TARGETS,
    *importers.TARGETS,
)


def by_name(name: str) -> Target:
    """Raises ``KeyError`` for a target that does not exist."""
    return {target.name: target for target in TARGETS}[name]
