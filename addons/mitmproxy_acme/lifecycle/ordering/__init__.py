"""Ordering: who may order a name now, at which CA, and one order at a time in the cluster.

This package knows limits, backoffs, leases and the choice of a CA; it must not know when a certificate is due.
"""
