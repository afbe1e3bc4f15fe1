"""``python3 -m slave HOST:PORT``.  Written so that an old Python can read it and say that it is too old."""

import sys

if sys.version_info < (3, 9):
    sys.stderr.write(
        "slave: this is Python %d.%d (%s); a slave needs 3.9 or newer\n" % (sys.version_info[:2] + (sys.executable,))
    )
    sys.exit(6)

from slave.cli import run

if __name__ == "__main__":
    run()
