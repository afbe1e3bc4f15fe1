"""Write slave.pyz from this checkout: python3 tools/build_slave.py [FILE].  See parallel/launch/slave_file.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parallel.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["slave-file", *sys.argv[1:]]))
