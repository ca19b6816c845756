"""Preloaded by a Dask worker (``dask worker --preload``): folds leave marks, take longer, and end their worker.

Set by the environment: FEATBANK_TEST_SEEN, a folder for one mark for each task in a file named by the process id;
FEATBANK_TEST_PAUSE, seconds; FEATBANK_TEST_DEADLY, how the names of tasks begin that end their worker;
FEATBANK_TEST_VERSION, a version of featbank to pretend.
"""

import os
import signal
import time
from functools import wraps
from pathlib import Path

import featbank.cluster
from regressors.solvers import answers

# A nanny loads this file twice.
_answer_fold = getattr(answers.answer_fold, "__wrapped__", answers.answer_fold)


@wraps(_answer_fold)
def _answer_fold_with_faults(*args, task_name, **kwargs):
    with (Path(os.environ["FEATBANK_TEST_SEEN"]) / str(os.getpid())).open("a") as log:
        log.write("x")
    time.sleep(float(os.environ.get("FEATBANK_TEST_PAUSE", "0")))
    deadly = os.environ.get("FEATBANK_TEST_DEADLY")
    if deadly and task_name.startswith(deadly):
        os.kill(os.getpid(), signal.SIGKILL)
    return _answer_fold(*args, task_name=task_name, **kwargs)


answers.answer_fold = _answer_fold_with_faults
if "FEATBANK_TEST_VERSION" in os.environ:
    featbank.cluster.__version__ = os.environ["FEATBANK_TEST_VERSION"]
