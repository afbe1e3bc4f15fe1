"""Tools of the developers: the benchmark, the examples, the test command."""
