"""adaptive: a learner's points, by an executor, which it asks how many calls that runs at a time."""

import adaptive

import parallel


def peak(x):
    return x + 0.01 / (0.01 + x**2)


def points(run):
    learner = adaptive.Learner1D(peak, bounds=(-1, 1))
    run(learner, npoints_goal=30)
    return dict(learner.data)


if __name__ == "__main__":
    with parallel.Executor(1) as executor:
        found = points(lambda learner, **goal: adaptive.BlockingRunner(learner, executor=executor, **goal))
    assert found == points(adaptive.runner.simple)
    with parallel.Executor(2) as executor:  # which points are asked for depends on which are known first
        found = points(lambda learner, **goal: adaptive.BlockingRunner(learner, executor=executor, **goal))
    assert len(found) >= 30 and found == {x: peak(x) for x in found}
    print("equal")
