"""scikit-learn: a grid search, and a forest inside a search, by joblib's backend."""

import joblib
import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import parallel.frontends.joblib

X, y = load_iris(return_X_y=True)


def scores():
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1, 1]}, cv=5)
    forest = GridSearchCV(RandomForestClassifier(n_estimators=8, random_state=1, n_jobs=2), {"max_depth": [2, 4]}, cv=3)
    return np.concatenate([each.fit(X, y).cv_results_["mean_test_score"] for each in (search, forest)])


parallel.frontends.joblib.register()
with joblib.parallel_config(backend="parallel", n_jobs=2):
    found = scores()
assert np.array_equal(found, scores())
print("equal")
