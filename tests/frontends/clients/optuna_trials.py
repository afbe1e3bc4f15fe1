"""optuna: trials that are asked for, evaluated by an executor, and told, a batch at a time."""

import optuna

import parallel


def objective(x, y):
    return (x - 2) ** 2 + (y + 1) ** 2


def best(map):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    for _ in range(10):
        trials = [study.ask() for _ in range(4)]
        xs = [trial.suggest_float("x", -5, 5) for trial in trials]
        ys = [trial.suggest_float("y", -5, 5) for trial in trials]
        for trial, value in zip(trials, map(objective, xs, ys)):
            study.tell(trial, value)
    return study.best_params


if __name__ == "__main__":
    with parallel.Executor(2) as executor:
        found = best(executor.map)
    assert found == best(map)
    print("equal")
