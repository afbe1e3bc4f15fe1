"""Score against distance for a harmonic restraint (k = 1, so E = d**2 / 2): an example as small as one can be.

python3 tools/examples/restraint.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not needed once parallel is installed

import parallel


class Particle:
    """A point on a line."""

    def __init__(self) -> None:
        self.x = 0.0


class Restraint:
    """A spring of strength k between a particle and the origin."""

    def __init__(self, particle: Particle, k: float) -> None:
        self.particle, self.k = particle, k

    def energy(self) -> float:
        """E = k d**2 / 2."""
        return self.k * self.particle.x**2 / 2


def setup() -> tuple[Particle, Restraint]:
    """Make the system, once on each slave; both objects are handed to every task there."""
    particle = Particle()
    return particle, Restraint(particle, k=1.0)


class Score:
    """A task: the energy at one distance."""

    def __init__(self, distance: float) -> None:
        self.distance = distance

    def __call__(self, particle: Particle, restraint: Restraint) -> tuple[float, float]:
        particle.x = self.distance
        return self.distance, restraint.energy()


def main() -> None:
    """Farm out eleven distances to two local slaves."""
    with parallel.Manager(output=None) as manager:
        for _ in range(2):
            manager.add_slave(parallel.LocalSlave())
        context = manager.get_context(setup)
        for tenths in range(0, 22, 2):
            context.add_task(Score(tenths / 10))
        for distance, energy in sorted(context.get_results_unordered()):
            print(f"d = {distance:3.1f}   E = {energy:4.2f}")


if __name__ == "__main__":
    main()
