"""From a thousand tasks to ten millions, drawn: python3 tools/growth.py [--most 1e7] [--draw tools/growth.svg].

No-op tasks on two local slaves, from the first that is added to the last result: by `Context.map_unordered`, whose
inputs are taken as they are needed, and, up to a tenth of that many, by `Context.add_task`.  What is drawn is the
master's processor time, which hardly minds who else computes, against the number, both in powers of ten: a straight
line means that a task costs the same however many there are.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import bench_peers  # noqa: E402 - found only after the lines above

Point = tuple[int, float]  # tasks, seconds
LEAST = 1_000
ADD, MAP = "add_task", "map_unordered"
COLOURS = {ADD: "#d9822b", MAP: "#2b7bd9"}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 62, 120, 16, 44


def by_add(context: Any, count: int) -> Iterator[object]:
    """Results of tasks that were added one by one."""
    for _ in range(count):
        context.add_task(bench_peers.noop)
    found: Iterator[object] = context.get_results_unordered()
    return found


def by_map(context: Any, count: int) -> Iterator[object]:
    """Results of a map."""
    found: Iterator[object] = context.map_unordered(_noop, range(count))
    return found


def _noop(number: int) -> None:
    bench_peers.noop()


def measure(most: int) -> dict[str, list[Point]]:
    """The seconds for each number of tasks."""
    import parallel

    found: dict[str, list[Point]] = {ADD: [], MAP: []}
    with parallel.Manager.local(2, output=None) as manager:
        context = manager.get_context()
        for way, limit in ((by_add, most // 10), (by_map, most)):
            sum(1 for _ in way(context, LEAST))
            count = LEAST
            while count <= limit:
                began = time.process_time()
                if sum(1 for _ in way(context, count)) != count:
                    sys.exit(f"of {count} tasks some have no result")
                seconds = time.process_time() - began
                found[ADD if way is by_add else MAP].append((count, seconds))
                print(f"{way.__name__} {count:,}: {seconds:.3f} s, {seconds / count * 1e6:.1f} us each", flush=True)
                count *= 10
    return found


def draw(found: dict[str, list[Point]]) -> str:
    """The same as an SVG."""
    points = [point for some in found.values() for point in some]
    x_from, x_to = 3, math.ceil(math.log10(max(count for count, _ in points)))
    y_from = math.floor(math.log10(min(seconds for _, seconds in points)))
    y_to = math.ceil(math.log10(max(seconds for _, seconds in points)))

    def place(count: float, seconds: float) -> tuple[float, float]:
        x = LEFT + (math.log10(count) - x_from) / (x_to - x_from) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (math.log10(seconds) - y_from) / (y_to - y_from) * (HEIGHT - TOP - BOTTOM)
        return x, y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#808080">'
    ]
    for power in range(x_from, x_to + 1):
        x, y = place(10**power, 10**y_from)
        parts.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#80808040"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{10**power:,}</text>')
    for power in range(y_from, y_to + 1):
        x, y = place(10**x_from, 10**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#80808040"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">no-op tasks</text>')
    parts.append(f'<text x="{LEFT + 6}" y="{TOP + 10}">the master\'s processor time</text>')
    for name, some in found.items():
        parts += _line(name, [place(*point) for point in some], some)
    return "\n".join([*parts, "</svg>", ""])


def _line(name: str, places: Sequence[tuple[float, float]], points: Sequence[Point]) -> list[str]:
    colour, (count, seconds) = COLOURS[name], points[-1]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    x, y = places[-1]
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<text x="{x + 8:.1f}" y="{y - 2:.1f}" fill="{colour}">{name}</text>',
        f'<text x="{x + 8:.1f}" y="{y + 12:.1f}" fill="{colour}">{seconds / count * 1e6:.1f} us each</text>',
    ]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--draw", metavar="FILE", help="an SVG")
    options = parser.parse_args()
    found = measure(options.most)
    if options.draw:
        Path(options.draw).write_text(draw(found))


if __name__ == "__main__":
    main()
