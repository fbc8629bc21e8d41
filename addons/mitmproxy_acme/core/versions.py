"""Versions of stored records: this release neither uses nor replaces a record of a later one.

This module knows the field ``version``; it must not know what else a record holds, or where it is stored.
"""

from .errors import RecordRefused


def reject_newer(fields: object, known: int, what: str) -> None:
    """Raise ``RecordRefused`` if a record (parsed JSON) has a version above ``known``; ``what`` names it in messages.

    Otherwise, in a rolling upgrade, a node of the earlier release would destroy what the later one wrote.
    """
    version = fields.get("version", known) if isinstance(fields, dict) else known
    if isinstance(version, int | float) and version > known:
        # Do not show the number: it may be 4,000 digits long, if someone forged it.
        raise RecordRefused(
            f"{what} was written by a later release of this addon; upgrade this node too: "
            "until then the record is neither used nor replaced"
        )
