"""The whole thing against real servers: mitmdump with the addon, Pebble, and clients that trust Pebble's root only."""
