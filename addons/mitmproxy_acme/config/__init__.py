"""The options: what they are called, how each is parsed, and what a wrong value says.

This room imports only ``core``. It reads the files that options name (keys, secrets), and no network.
"""
