"""Attacks on the gate, and what it costs."""
