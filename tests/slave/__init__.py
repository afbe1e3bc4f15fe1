"""Tests of slave."""
