"""What ``mitmproxy-acme check`` examines before a CA does: options, DNS, ports, storage, CAs.

Each check returns findings. This room does not know how they are printed.
"""
