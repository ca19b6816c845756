"""Solvers of the regressors: functions of arrays that know no estimator."""
