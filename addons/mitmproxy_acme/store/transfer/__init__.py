"""Transfer: records go from one storage to another, or into a backup file and back.

This package knows which records move, and which of two different records is newer. It must not know the command line,
or what a proxy does with a record.
"""
