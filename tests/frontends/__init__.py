"""The front ends: futures, executor, maps; and CPython's own tests of such things."""
