"""Times and sizes for people."""

from __future__ import annotations


def show_time(seconds: float) -> str:
    """Seconds, with three digits."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:02.0f} min"
    if seconds >= 120:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 100 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e6:.0f} us" if seconds else "0 s"


def show_bytes(size: float) -> str:
    """Bytes, with three digits."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
