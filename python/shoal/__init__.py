"""Shoal: one address for a sharded, self-healing Redis."""
