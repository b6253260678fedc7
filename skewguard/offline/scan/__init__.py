"""Scan: rows of a source as they lie there, for whoever does not ask but reads."""

from skewguard.offline.scan.duckdb import read_source, run_query, source_schema

__all__ = ["read_source", "run_query", "source_schema"]
