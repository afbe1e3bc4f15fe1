"""``python3 -m slave HOST:PORT``.  Written so that an old Python can read it and say that it is too old."""

from slave.cli import run

if __name__ == "__main__":
    run()
