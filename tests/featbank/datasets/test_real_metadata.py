"""The readers on the metadata of the releases, against the figures their authors published."""

import time

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbank.datasets import check_dataset, read_dataset, render_check

pytestmark = pytest.mark.dataset


@pytest.fixture(scope="module")
def uhd_iqa(real_data):
    return read_dataset(real_data / "uhd-iqa")


@pytest.fixture(scope="module")
def koniq(real_data):
    return read_dataset(real_data / "koniq-10k")


def test_uhd_iqa_has_the_published_counts(uhd_iqa):
    assert uhd_iqa.name == "uhd-iqa"
    assert uhd_iqa.n_images == 6073
    assert uhd_iqa.counts() == {
        "training": 4269,
        "validation": 904,
        "validation/exclusive": 304,
        "test": 900,
        "test/exclusive": 300,
    }
    assert uhd_iqa.frame["mos"].between(0, 1).all()
    assert uhd_iqa.notes == ()


def test_uhd_iqa_check_gives_the_known_figures_quickly(uhd_iqa):
    started = time.perf_counter()
    report = check_dataset(uhd_iqa)
    assert time.perf_counter() - started < 5, "no image is there, so nothing may be opened"
    assert report["every_image_missing"]
    assert report["n_missing"] == 6073
    assert report["group_overlap"]["test"] == pytest.approx(0.826, abs=0.0005)
    assert report["constant"]["test"]["mae"] == pytest.approx(0.0722, abs=0.00005)
    assert report["constant"]["test"]["rmse"] == pytest.approx(0.0956, abs=0.00005)
    text = render_check(report)
    assert "Every image is missing: none of the 6,073 files is there" in text
    assert "0.0722" in text


def test_uhd_iqa_metadata_alone_reach_the_known_floor(uhd_iqa):
    training, test = uhd_iqa.select("training"), uhd_iqa.select("test")
    columns = uhd_iqa.meta_columns
    assert len(columns) == 8
    model = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(training[columns], training["mos"])
    floor = spearmanr(model.predict(test[columns]), test["mos"]).statistic
    assert floor == pytest.approx(0.30, abs=0.005)


def test_koniq_has_the_published_counts(koniq):
    assert koniq.name == "koniq-10k"
    assert koniq.counts() == {"training": 7058, "validation": 1000, "test": 2015}
    assert koniq.n_images == 10_073
    assert koniq.notes == ()


def test_koniq_scores_rise_with_the_mean_of_the_rating_categories(koniq, real_data):
    # Guards the direction and the pairing of scores and names: the means come from other columns.
    ratings = np.genfromtxt(
        real_data / "koniq-10k" / "koniq10k_distributions_sets.csv",
        delimiter=",",
        skip_header=1,
        usecols=range(1, 6),
    )
    assert spearmanr(ratings @ np.arange(1, 6), koniq.frame["mos"]).statistic > 0.99


def test_the_metadata_file_itself_gives_the_same_table(uhd_iqa, real_data):
    again = read_dataset(real_data / "uhd-iqa" / "uhd-iqa-metadata.csv")
    assert again.frame.equals(uhd_iqa.frame)
    assert again.root == uhd_iqa.root
