"""One photo at a time: what a worker returns, and what it refuses to compute under another's key."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from featbank.digest import digest_file, digest_json
from featbank.errors import EncoderSetupError
from featbank.feature import FeatureRequest, Job, built, compute, run_jobs
from tests.support.datasets import write_image

REQUEST = FeatureRequest("classic:layout", "squash_16x16")


def job_for(path: Path, digest: str | None = None) -> Job:
    digest = digest or digest_json(built(REQUEST).identity)
    return Job(str(path), path.name, digest_file(path), (REQUEST,), (digest,))


def test_an_outcome_names_its_photo_and_survives_being_sent(tmp_path: Path) -> None:
    job = job_for(write_image(tmp_path / "a.png"))
    outcome = pickle.loads(pickle.dumps(compute(pickle.loads(pickle.dumps(job)))))
    assert outcome.job == job
    assert outcome.key == job.key
    assert outcome.vectors[REQUEST].shape == (built(REQUEST).n_features,)
    assert (outcome.failures, outcome.record.status) == ({}, "ok")


def test_a_file_that_changed_meanwhile_is_stored_under_what_was_read(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", seed=1)
    job = job_for(path)
    write_image(path, seed=2)
    assert compute(job).key == digest_file(path) != job.key


def test_numbers_of_another_key_are_refused(tmp_path: Path) -> None:
    """As a worker on another machine with another library would compute them."""
    path = write_image(tmp_path / "a.png")
    with pytest.raises(
        EncoderSetupError, match=r"under the key .* but the bank's is abababababab.*same versions"
    ):
        compute(job_for(path, "ab" * 32))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_has_one_outcome(workers: int, tmp_path: Path) -> None:
    jobs = [job_for(write_image(tmp_path / f"{n}.png", seed=n)) for n in range(5)]
    assert sorted(outcome.job.path for outcome in run_jobs(jobs, workers)) == [job.path for job in jobs]
