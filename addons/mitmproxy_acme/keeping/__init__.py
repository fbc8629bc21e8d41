"""What is kept, and where in storage: every storage key is spelt in ``places``.

This room knows ``acme_storage`` and the words; it must not know a CA, mitmproxy or an event loop: all of it blocks.
"""
