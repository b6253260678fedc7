"""Lookups and predictions over HTTP, beside Feast's own server on the same machine and data."""
