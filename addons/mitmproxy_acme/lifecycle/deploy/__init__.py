"""Deploy: the operator's command that runs with each new certificate, its files and its output.

This package knows processes and events; it must not know how a certificate is obtained.
"""
