"""The subcommands of ``python3 -m parallel``, one file for each.

Each has ``SUMMARY``, one line; ``add_arguments(parser)``; and ``run(options)``, which returns the exit code.
"""
