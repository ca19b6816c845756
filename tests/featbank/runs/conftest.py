"""One small fitted run for the tests of what is done with a model."""

from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank
from featbank.datasets import read_dataset
from featbank.extract import FeatureRequest, extract
from featbank.recipes.reading import parse_recipe
from featbank.runs.fit import FitOptions, fit_run
from tests.support.datasets import CLASSIC_RECIPE, write_image


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    rng = np.random.default_rng(0)
    lines = ["path,mos,split"]
    for number in range(40):
        write_image(folder / "photos" / f"{number}.png", seed=number)
        lines.append(f"photos/{number}.png,{rng.uniform(1, 5):.3f},{'training' if number < 30 else 'test'}")
    (folder / "scores.csv").write_text("\n".join(lines))
    table = read_dataset(folder / "scores.csv")
    recipe = parse_recipe(CLASSIC_RECIPE, "small")
    bank = Bank(folder / "bank")
    requests = [FeatureRequest(band.encoder, band.view, band.aggregate) for band in recipe.bands]
    extract(list(zip(table.frame["image_id"], table.frame["path"], strict=True)), requests, bank, workers=1)
    fit_run(table, recipe, bank, folder / "run", FitOptions(workers=1))
    return folder
