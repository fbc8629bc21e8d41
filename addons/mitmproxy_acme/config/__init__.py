"""The options: their names, how each is parsed, and what a wrong value is told.

This room imports only ``core``. It reads the files that options name (keys, secrets), and no network.
"""
