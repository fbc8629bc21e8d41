"""Renewal: which certificate is due, which one is left to its end, and what is removed after it.

This package knows the schedule; it must not know how a certificate is obtained.
"""
