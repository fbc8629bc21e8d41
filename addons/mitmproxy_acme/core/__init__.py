"""The terms that every room uses (names, certificates, errors, renewal times, backoffs, events) and small helpers.

Nothing here reads a disk, talks to a network or knows mitmproxy.
"""
