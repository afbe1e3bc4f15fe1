"""Decisions only: no clock, lock, thread, socket or file in here; time is an argument (seconds, monotonic)."""
