"""The command line ``mitmproxy-acme``: its commands, and the importers of certificates of other programs."""
