"""The commands of ``mitmproxy-acme``, one module each: HELP, add_arguments, run.

Each knows its arguments, its output and its exit codes; other modules do the work. ``run`` returns the exit code; it
raises ``ConfigError`` for wrong arguments or options, and ``AcmeError`` or ``StorageError`` for failures.
"""
