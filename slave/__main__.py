"""``python3 -m slave HOST:PORT``.  Written so that an old Python can read it and say that it is too old.

It is also the first module of slave.pyz.
"""

import gc
import sys

if sys.version_info < (3, 9):
    sys.stderr.write(
        "slave: this is Python %d.%d (%s); a slave needs 3.9 or newer\n" % (sys.version_info[:2] + (sys.executable,))
    )
    sys.exit(6)

_NO_MEMORY = "slave: there is no memory for the slave program: see what 'ulimit -a' says here\n"

gc.disable()  # what is imported stays: to look again and again whether some of it is garbage is in vain
try:
    from slave.cli import run
except MemoryError:
    sys.stderr.write(_NO_MEMORY)
    sys.exit(9)
except ImportError as error:
    if "failed to map segment" in str(error):
        sys.stderr.write(_NO_MEMORY)
        sys.exit(9)
    if "zlib not available" not in str(error):
        raise
    sys.stderr.write("slave: this Python (%s) has no zlib, without which slave.pyz cannot be read\n" % sys.executable)
    sys.exit(6)

gc.freeze()  # nor is it looked at later, and so not copied in forks
gc.enable()

if __name__ == "__main__":
    run()
