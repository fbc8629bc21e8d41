"""Versions of stored records: one of a later release is neither used nor replaced by this one.

This module knows the field ``version``; it must not know what else is in a record, or where it is stored.
"""

from .errors import RecordRefused


def reject_newer(fields: object, known: int, what: str) -> None:
    """Raise ``RecordRefused`` where a record (parsed JSON) has a version above ``known``; ``what`` is its name.

    In a rolling upgrade a node of the earlier release would otherwise destroy what the later one wrote.
    """
    version = fields.get("version", known) if isinstance(fields, dict) else known
    if isinstance(version, int | float) and version > known:
        # The number is not shown: whoever wrote it may have made it 4,000 digits long.
        raise RecordRefused(
            f"{what} was written by a later release of this addon: upgrade this node too; "
            "until then the record is neither used nor replaced"
        )
