"""Lennard-Jones clusters: the lowest energies of 7 and 13 atoms, by basin-hopping spread over local slaves.

    python3 tools/examples/lennard_jones.py [number of slaves] [--checkpoint FILE]

With a checkpoint it goes on where it was when it is started again after it was killed.

Basin-hopping: D. J. Wales and J. P. K. Doye, J. Phys. Chem. A 101, 5111 (1997).  The known energies are those of the
Cambridge Cluster Database (D. J. Wales et al.), in units of the pair well depth: E(7) = -16.505384, E(13) = -44.326801.
Pure Python, no packages.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not needed once parallel is installed

import parallel

KNOWN = {7: -16.505384, 13: -44.326801}
HOPS = 60  # of one walk
WALKS = {7: 16, 13: 64}
TEMPERATURE = 0.8  # of the walk between basins, in well depths
STEP = 0.36  # largest random displacement of a coordinate, in units of sigma

Vector = list[float]


def energy_and_gradient(x: Vector) -> tuple[float, Vector]:
    """E = 4 sum over pairs of r**-12 - r**-6, and its gradient; ``x`` holds x, y, z of atom after atom."""
    energy, gradient = 0.0, [0.0] * len(x)
    for i in range(3, len(x), 3):
        xi, yi, zi = x[i], x[i + 1], x[i + 2]
        gx = gy = gz = 0.0
        for j in range(0, i, 3):
            dx, dy, dz = xi - x[j], yi - x[j + 1], zi - x[j + 2]
            inverse = 1.0 / (dx * dx + dy * dy + dz * dz)
            sixth = inverse * inverse * inverse
            energy += sixth * (sixth - 1.0)
            force = (6.0 - 12.0 * sixth) * sixth * inverse
            fx, fy, fz = force * dx, force * dy, force * dz
            gx += fx
            gy += fy
            gz += fz
            gradient[j] -= fx
            gradient[j + 1] -= fy
            gradient[j + 2] -= fz
        gradient[i] += gx
        gradient[i + 1] += gy
        gradient[i + 2] += gz
    return 4.0 * energy, [8.0 * g for g in gradient]


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return sum(map(float.__mul__, a, b))


def relax(x: Vector, tolerance: float) -> tuple[float, Vector]:
    """The local minimum below ``x``, to ``tolerance`` in the gradient's length, by L-BFGS (Nocedal and Wright, 7.2)."""
    energy, gradient = energy_and_gradient(x)
    history: list[tuple[Vector, Vector, float]] = []
    for _ in range(500):
        if dot(gradient, gradient) < tolerance * tolerance:
            break
        direction = descend(gradient, history)
        longest = max(map(abs, direction))
        scale = min(1.0, 0.4 / longest)
        while True:
            trial = [a + scale * d for a, d in zip(x, direction)]
            trial_energy, trial_gradient = energy_and_gradient(trial)
            if trial_energy <= energy + 1e-10 or scale < 1e-8:
                break
            scale *= 0.3
        step = [a - b for a, b in zip(trial, x)]
        change = [a - b for a, b in zip(trial_gradient, gradient)]
        curvature = dot(step, change)
        history = [*history[-5:], (step, change, 1.0 / curvature)] if curvature > 1e-12 else []
        x, energy, gradient = trial, trial_energy, trial_gradient
    return energy, x


def descend(gradient: Vector, history: list[tuple[Vector, Vector, float]]) -> Vector:
    """The L-BFGS direction: minus the approximate inverse Hessian times the gradient."""
    q = [-g for g in gradient]
    if not history:
        return [0.05 * a for a in q]
    weights = []
    for step, change, rho in reversed(history):
        weight = rho * dot(step, q)
        weights.append(weight)
        q = [a - weight * b for a, b in zip(q, change)]
    step, change, rho = history[-1]
    gamma = 1.0 / (rho * dot(change, change))
    q = [gamma * a for a in q]
    for (step, change, rho), weight in zip(history, reversed(weights)):
        correction = weight - rho * dot(change, q)
        q = [a + correction * b for a, b in zip(q, step)]
    return q


class Pool(NamedTuple):
    """What setup makes: relaxed random clusters, where walks begin."""

    atoms: int
    starts: list[Vector]
    slave: int


class MakePool:
    """A setup: relax random clusters, the best of them first.  The expensive part; it runs once on each slave."""

    def __init__(self, atoms: int, tries: int) -> None:
        self.atoms, self.tries = atoms, tries

    def __call__(self) -> Pool:
        chance = random.Random(self.atoms)
        radius = 0.8 * self.atoms ** (1 / 3)
        relaxed = []
        for _ in range(self.tries):
            start = [chance.uniform(-radius, radius) for _ in range(3 * self.atoms)]
            relaxed.append(relax(start, 0.01))
        relaxed.sort()
        return Pool(self.atoms, [x for _, x in relaxed[: self.tries // 2]], os.getpid())


class Walk:
    """A task: one walk of basin-hopping from one of the pool's clusters; returns the lowest energy found."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, atoms: int, starts: list[Vector], slave: int) -> tuple[int, float, int]:
        chance = random.Random(self.seed)
        energy, x = relax(starts[self.seed % len(starts)], 0.01)
        best_energy, best = energy, x
        for _ in range(HOPS):
            trial_energy, trial = relax([a + chance.uniform(-STEP, STEP) for a in x], 0.01)
            if trial_energy < energy or chance.random() < math.exp((energy - trial_energy) / TEMPERATURE):
                energy, x = trial_energy, trial
                if energy < best_energy:
                    best_energy, best = energy, x
        return atoms, relax(best, 1e-7)[0], slave


def show_progress(atoms: int, energies: list[float]) -> None:
    """One line that is written over and over on a terminal, and once into a file."""
    done = len(energies) == WALKS[atoms]
    if done or sys.stdout.isatty():
        line = f"{atoms:3d} atoms: walk {len(energies):2d} of {WALKS[atoms]}, lowest so far {min(energies):12.6f}"
        print("\r" * sys.stdout.isatty() + line, end="\n" if done else "", flush=True)


def main() -> int:
    """Run all walks, and compare the lowest energies with the known ones."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("slaves", type=int, nargs="?", default=min(8, os.cpu_count() or 2))
    parser.add_argument("--checkpoint", metavar="FILE")
    options = parser.parse_args()
    began = time.perf_counter()
    found: dict[int, list[float]] = {atoms: [] for atoms in KNOWN}
    workers = set()
    with parallel.Manager(output=None) as manager:
        for _ in range(options.slaves):
            manager.add_slave(parallel.LocalSlave())
        contexts = {
            atoms: manager.get_context(MakePool(atoms, tries=40), checkpoint=options.checkpoint) for atoms in KNOWN
        }
        for atoms, context in contexts.items():
            for seed in range(WALKS[atoms]):
                context.add_task(Walk(seed))
        for atoms, context in contexts.items():
            for _, energy, worker in context.get_results_unordered():
                found[atoms].append(energy)
                workers.add(worker)
                show_progress(atoms, found[atoms])
    print(f"\n{'atoms':>5s} {'found':>12s} {'known':>12s} {'difference':>11s} {'walks that found it':>20s}")
    for atoms, energies in found.items():
        lowest, known = min(energies), KNOWN[atoms]
        hits = sum(abs(energy - known) < 1e-5 for energy in energies)
        print(f"{atoms:5d} {lowest:12.6f} {known:12.6f} {lowest - known:11.1e} {hits:>13d} of {len(energies)}")
    walks = sum(map(len, found.values()))
    print(f"{walks} walks of {HOPS} hops on {len(workers)} slaves in {time.perf_counter() - began:.1f} s")
    return 0 if all(abs(min(energies) - KNOWN[atoms]) < 1e-5 for atoms, energies in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
