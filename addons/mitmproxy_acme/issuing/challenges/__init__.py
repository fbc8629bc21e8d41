"""The challenges of ACME, one module each: which one of an authorization to take, and what proves it."""
