"""Launchers on the real engines: see tools/engines and tests/support/engines.py."""
