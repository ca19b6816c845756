"""The main score on the published figures, and its laws."""

import numpy as np
import pandas as pd
import pytest

from featbank.leaderboard.board import main_scores, rank_metrics
from featbank.leaderboard.published import METRIC_COLUMNS, published_table


def teams(number: int) -> pd.DataFrame:
    table = published_table(number)
    table = table[table["kind"] == "team"].set_index("method")
    return table[list(METRIC_COLUMNS)].astype(float)


def test_table_1_gives_the_published_podium() -> None:
    scores = main_scores(teams(1))
    assert len(scores) == 8
    assert scores["SJTU"] == 1.4
    assert scores["GS-PIQA"] == 2.4
    assert scores["CIPLAB"] == 2.6
    assert list(scores.sort_values().index) == [
        "SJTU",
        "GS-PIQA",
        "CIPLAB",
        "EQCNet",
        "MobileNet-IQA",
        "NF-RegNets",
        "CLIP-IQA*",
        "ICL",
    ]


def test_table_3_puts_ciplab_second_as_the_report_says() -> None:
    assert main_scores(teams(3)).sort_values().index[1] == "CIPLAB"


def test_equal_errors_share_the_better_rank() -> None:
    # Table 3 prints MAE 0.0328 for both EQCNet and MobileNet-IQA.
    ranks = rank_metrics(teams(3))["mae"]
    assert ranks["EQCNet"] == ranks["MobileNet-IQA"] == 4
    assert ranks["NF-RegNets"] == 6


def test_ranks_depend_on_order_alone() -> None:
    table = teams(1)
    stretched = table.assign(mae=table["mae"] ** 2, srcc=np.exp(table["srcc"]))
    pd.testing.assert_frame_equal(rank_metrics(table), rank_metrics(stretched))


def test_a_constant_prediction_cannot_profit_from_having_no_correlation() -> None:
    table = pd.DataFrame(
        {
            "mae": [0.1, 0.05],
            "rmse": [0.2, 0.1],
            "plcc": [0.3, np.nan],
            "srcc": [-0.9, np.nan],
            "krcc": [-0.5, np.nan],
        }
    )
    assert rank_metrics(table).loc[1, ["plcc", "srcc", "krcc"]].tolist() == [2, 2, 2]


def test_every_figure_is_a_number_in_its_range() -> None:
    for number in (1, 2, 3):
        table = published_table(number)
        values = table[list(METRIC_COLUMNS)].astype(float)
        assert values.gt(0).all(axis=None)
        assert values.lt(1).all(axis=None)
        # An RMSE is never below its MAE.
        assert (values["rmse"] >= values["mae"]).all()
    with pytest.raises(ValueError, match="number must be one of"):
        published_table(6)
