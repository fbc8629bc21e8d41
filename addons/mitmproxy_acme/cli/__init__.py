"""The command line ``mitmproxy-acme``: its commands, and the importers of other programs' certificates."""
