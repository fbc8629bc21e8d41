"""The commands of ``mitmproxy-acme``, one module each: HELP, add_arguments, run.

Each knows its arguments, its output and its exit codes; the work is done elsewhere. ``run`` returns the exit code, and
raises ``ConfigError`` for what is wrong with arguments or options, ``AcmeError`` and ``StorageError`` for what failed.
"""
