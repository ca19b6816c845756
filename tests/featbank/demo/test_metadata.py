import csv
import io

import numpy as np

from featbank.demo.metadata import COLUMNS, TAG_COLUMNS, metadata_rows, tag_rows, to_csv
from featbank.demo.plan import make_plan
from featbank.demo.raters import mean_opinion, rate

HEADER = (
    '"image_name","quality_mos","set","subset","orig_width","orig_height","views","likes","favorites","downloads",'
    '"comments","image_bytes","user_name","page_url","image_name_orig"'
)


def _rows(n_photos=200, seed=0):
    plans = make_plan(n_photos, 3840, seed)
    fidelity = np.random.default_rng(seed).beta(4, 1.2, n_photos)
    mos = mean_opinion(rate(fidelity, [p.name for p in plans], seed)).tolist()
    return plans, mos, metadata_rows(plans, mos, seed)


def test_the_table_is_quoted_as_the_release_quotes_it():
    plans, mos, rows = _rows(20)
    lines = to_csv(COLUMNS, rows).split("\n")
    assert lines[0] == HEADER
    assert lines[-1] == ""
    first = lines[1].split(",")
    assert first[0] == '"1.jpg"'
    assert first[1] == str(mos[0])
    assert first[2] == f'"{plans[0].split}"'
    assert first[3] == f'"{plans[0].subset}"'
    assert all(cell.isdigit() for cell in first[4:12])
    assert first[13] == '""'
    assert first[14].startswith('"')
    assert first[14].endswith('.jpg"')


def test_the_header_is_the_releases_own(real_data):
    with (real_data / "uhd-iqa" / "uhd-iqa-metadata.csv").open() as file:
        assert file.readline().rstrip("\n") == HEADER


def test_the_table_reads_back():
    plans, mos, rows = _rows(40)
    read = list(csv.DictReader(io.StringIO(to_csv(COLUMNS, rows))))
    assert [row["image_name"] for row in read] == [plan.name for plan in plans]
    assert [float(row["quality_mos"]) for row in read] == mos
    assert len({row["image_name_orig"] for row in read}) == 40
    for row, plan in zip(read, plans, strict=True):
        ratio = int(row["orig_width"]) / int(row["orig_height"])
        assert abs(ratio - plan.width / plan.height) < 0.002


def test_popularity_is_tied_to_mos_only_weakly():
    links = []
    for seed in range(8):
        _, mos, rows = _rows(200, seed)
        views = np.log([row["views"] for row in rows])
        links.append(np.corrcoef(views, mos)[0, 1])
        assert abs(np.corrcoef(np.log([row["image_bytes"] for row in rows]), mos)[0, 1]) < 0.25
    # Eight sets of 200: the mean of the correlations has a standard error of 0.025.
    assert 0.12 < np.mean(links) < 0.38


def test_tags_refer_to_the_original_names():
    plans, _, rows = _rows(20)
    tags = tag_rows(plans, 0)
    assert {row["image_name"] for row in tags} == {row["image_name_orig"] for row in rows}
    assert to_csv(TAG_COLUMNS, tags).startswith('"image_name","tag","machine_confidence","parents"\n')
