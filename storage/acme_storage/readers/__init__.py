"""Readers of what other programs store in Redis, Consul or Vault, one module each. ``open_reader`` imports them."""
