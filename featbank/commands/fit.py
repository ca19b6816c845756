"""The commands fit, score, ladder, evaluate, report and distill: what is made of features."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from featbank import commands as opt
from featbank.commands import SIMULATION, Command, Output, say
from featbank.errors import OutputError

_STEPS = 1500
"""Of a student on crops, where no trunk has learned yet."""


_FIT_OPTIONS = (
    *(opt.DATA, opt.IMAGES, opt.RECIPE, opt.CODE, opt.BANK, opt.TRUNCATED, opt.WORKERS, opt.CLUSTER),
    opt.argument("--out RUN", "run folder (default: runs/RECIPE)"),
    opt.MEMORY_LIMIT,
    opt.TEST_FRACTION,
    opt.switch("--over-budget", "fit although the recipe's GMACs exceed its budget"),
    opt.REFERENCE,
    opt.argument(
        "--permutations K",
        "fits on shuffled MOS, which must score near zero; 0 for none (default: by the size of the problem)",
        opt.non_negative_int,
    ),
    opt.argument("--confidence C", "nominal coverage of the prediction intervals", opt.fraction, 0.9),
    opt.argument(
        "--calibrate training|validation",
        "held-out predictions behind the intervals: out of fold on training, or validation",
        default="training",
    ),
)


def _fit(options: argparse.Namespace) -> Output:
    """Fit a recipe on a dataset's training rows, evaluate on its other rows, write a run folder.

    Folds, hyper-parameters and weights come from training rows alone; validation and test rows are read once, by
    the last step. Beside the model stand the constant prediction, the MOS of the nearest training photo, every single
    band, and, where the dataset has metadata, a ridge that sees no pixel.

    For example:
      featbank fit ~/uhd-iqa --recipe starter --out runs/starter
      featbank fit ~/uhd-iqa --recipe icl --out runs/icl --cluster dask://10.0.0.5:8786
    """
    from featbank.bank import Bank
    from featbank.recipes.reading import read_recipe
    from featbank.report.page import photos_of, write_report
    from featbank.runs.fit import FitOptions, fit_run
    from regressors.persistence import import_skops

    recipe = read_recipe(options.recipe)
    table = opt.read_data(options)
    out = Path(options.out or f"runs/{recipe.name}")
    import_skops(with_estimators=False)  # it writes a model of this package alone
    with opt.cluster_of(options) as cluster:
        chosen = FitOptions(
            options.workers,
            cluster,
            options.test_fraction,
            options.over_budget,
            options.reference,
            options.permutations,
            options.confidence,
            options.calibrate,
            options.memory_limit,
            opt.features_command(options, options.data),
        )
        metrics = fit_run(
            table,
            recipe,
            Bank(options.bank),
            out,
            chosen,
            write_report=lambda folder: write_report(folder, photos=photos_of(table), into=folder),
            log=say,
        )
    text = render_metrics(metrics) + f"\nrun: {out}   report: {out / 'report.html'}"
    return Output({"run": str(out), "metrics": metrics}, text)


def render_metrics(metrics: dict[str, Any]) -> str:
    """Lay the metrics out as the table that `featbank fit` prints."""
    from featbank.encoders import random_weights_note

    names = ("training_cv", "validation", "validation/exclusive", "test", "test/exclusive")
    lines = _metric_lines({name: metrics[name] for name in names if name in metrics})
    last = "test" if "test" in metrics else "validation"
    compared = {"constant prediction": metrics.get("baselines", {}).get("constant", {})}
    compared["metadata-only ridge"] = metrics.get("baselines", {}).get("metadata_ridge", {})
    compared["nearest photo's MOS"] = metrics.get("baselines", {}).get("nearest_photo", {})
    compared |= {f"band {name} alone": scores for name, scores in metrics.get("single_bands", {}).items()}
    shown = [_metric_line(name, scores[last]) for name, scores in compared.items() if last in scores]
    if shown:
        lines += [f"for comparison, on {last}:", *shown]
    lines.append(
        f"cost {metrics['gmacs']:.3f} GMACs of {metrics['budget_gmacs']:g}, {metrics['params_m']:.2f} M parameters"
    )
    if metrics["simulation"]:
        lines.append(SIMULATION)
    if metrics["random_weights"]:
        lines.append(random_weights_note(metrics["random_weights"]))
    return "\n".join(lines)


def _metric_lines(parts: dict[str, Any]) -> list[str]:
    lines = [
        f"{'':<22}{'n':>6}  {'SRCC':>6} {'95 % interval':>16}  {'PLCC':>6}  {'KRCC':>6}  {'RMSE':>8}  {'MAE':>8}"
    ]
    lines += [_metric_line(name, scores) for name, scores in parts.items()]
    reasons = {name: scores.get("ci95_reason") for name, scores in parts.items()}
    return lines + [f"no interval for {name}: {reason}" for name, reason in reasons.items() if reason]


def _metric_line(name: str, scores: dict[str, Any]) -> str:
    low, high = (scores.get("ci95") or {}).get("srcc", (None, None))
    interval = f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else "-"
    cells = [f"{scores[key]:.4f}" if scores[key] is not None else "-" for key in ("srcc", "plcc", "krcc")]
    errors = [f"{scores[key]:.4g}" for key in ("rmse", "mae")]
    return (
        f"  {name:<20}{scores['n']:>6}  {cells[0]:>6} {interval:>16}  {cells[1]:>6}  {cells[2]:>6}  "
        f"{errors[0]:>8}  {errors[1]:>8}"
    )


_SCORE_OPTIONS = (
    opt.argument("model MODEL", "model.skops of a run, or the run folder"),
    opt.argument(
        "paths PATH...",
        "image files or folders, or their URLs; or lists of them: a text file with a path in each line, - for "
        "standard input, or a table with a column of paths (one that leads nowhere has a row that says so)",
    ),
    opt.argument("--csv FILE", "write the table there instead of printing it"),
    opt.switch("--jsonl", "print a JSON object for each image, in their order, as they come"),
    *(opt.BANK, opt.CODE, opt.TRUNCATED, opt.DEVICE, opt.ENGINE, opt.PRECISION, opt.WORKERS),
)


def _score(options: argparse.Namespace) -> Output:
    """Predict the MOS of new images with a fitted model, computing only what the model needs.

    Prints CSV: image, predicted MOS, its interval, spread (standard deviation) of the ensemble's members;
    unlike_training with distance (above 1: farther from the training photos than they are from each other; no
    interval is given then); off_scale (below or above the MOS scale of the training data); simulation; reason (why
    there is no prediction). Features go to the bank, so scoring again is quick.

    For example:
      featbank score runs/starter/model.skops photos/ --csv scores.csv
      find /photos -name '*.jpg' | featbank score runs/starter - --jsonl
    """
    import pandas as pd

    from featbank.atomic import check_file, replacing
    from featbank.bank import Bank
    from featbank.datasets import is_list, read_list, read_photos
    from featbank.encoders import random_weights_note
    from featbank.runs.score import BATCH, Scorer, is_table_of_scores, json_rows, score_batches
    from featbank.workers import keep_freed_memory
    from regressors.persistence import import_skops

    if options.jsonl and (options.csv or options.json):
        raise OutputError(
            "score: --jsonl is one way to give scores, --csv and --json are others. Choose one."
        )
    if options.csv:
        check_file(options.csv, "score --csv", is_table_of_scores)
    opt.apply_compute(options)
    keep_freed_memory()  # with one worker this process does the work
    import_skops(with_estimators=False)
    bank, scorer = Bank(options.bank), Scorer.load(options.model)
    lists = [path for path in options.paths if is_list(path)]
    table = read_photos(
        [path for path in options.paths if path not in lists],
        [name for path in lists for name in read_list(path)],
    )
    parts = []
    for part in score_batches(
        scorer, table, bank, workers=options.workers, size=BATCH if options.jsonl else table.n_images
    ):
        for note in dict.fromkeys([SIMULATION] * part.attrs["simulation"] + part.attrs["notes"]):
            say(note)
        if options.jsonl:
            for row in json_rows(part):
                print(json.dumps(row), flush=True)
        parts.append(part)
    scores = pd.concat(parts, ignore_index=True)
    scores.attrs = parts[0].attrs
    failed = int(scores["predicted"].isna().sum())
    document = {
        "model": options.model,
        "scored": len(scores) - failed,
        "failed": failed,
        "simulation": bool(scores.attrs["simulation"]),
        "statement": SIMULATION if scores.attrs["simulation"] else "",
        "mos_range": list(scores.attrs["mos_range"]),
        "unlike_training": int((scores["unlike_training"] == True).sum()),  # noqa: E712 - None where unknown
        "off_scale": int(scores["off_scale"].isin(["below", "above"]).sum()),
        "random_weights": list(scores.attrs["random_weights"]),
        "notes": list(scores.attrs["notes"]),
        "scores": json_rows(scores),
    }
    if scores.attrs["random_weights"]:
        say(random_weights_note(scores.attrs["random_weights"]))
    # Nothing scored is work that could not be done; a few broken files among good ones are not.
    code = 1 if failed == len(scores) else 0
    if options.csv:
        with replacing(options.csv, "score --csv") as path:
            scores.to_csv(path, index=False, float_format="%.6g")
        return Output(document, f"{len(scores) - failed} scored, {failed} failed: {options.csv}", code)
    if options.jsonl:
        return Output(document, "", code)
    return Output(document, scores.to_csv(index=False, float_format="%.6g").rstrip("\n"), code)


_LADDER_OPTIONS = (
    opt.argument("model MODEL", "model.skops of a run, or the run folder"),
    opt.argument(
        "photos PHOTO...", "image files or folders, or their URLs; good photos, as they are to be made worse"
    ),
    opt.argument(
        "--sizes PX...",
        "long sides in pixels to which photos are reduced; one that is smaller is left out there",
        opt.positive_int,
        default=[],
    ),
    opt.argument("--csv FILE", "write every score there, by photo, size, distortion and level"),
    *(opt.CODE, opt.DEVICE, opt.ENGINE, opt.WORKERS),
)


def _ladder(options: argparse.Namespace) -> Output:
    """See whether a model's scores fall while photos get worse: noise, blur, JPEG, resampling, ten levels each.

    Photos are reduced to a long side of 512, 1,600 and 3,840 pixels where they have as many, and never enlarged. Prints
    for each distortion and size how many steps from one level to the next fall, how often the strongest level scores
    below all others, and the mean scores of the photo itself, of level 5 and of level 10. No MOS is needed, and no
    feature is kept.

    For example:
      featbank ladder runs/starter photos/ --csv ladder.csv
    """
    from tqdm import tqdm

    from featbank.atomic import check_file, replacing
    from featbank.datasets import read_photos
    from featbank.runs.ladder import SIZES, climb, is_ladder, summarise_ladder
    from featbank.runs.score import Scorer
    from featbank.workers import keep_freed_memory

    if options.csv:
        check_file(options.csv, "ladder --csv", is_ladder)
    opt.apply_compute(options)
    keep_freed_memory()
    scorer, photos = Scorer.load(options.model), read_photos(options.photos)
    with tqdm(total=photos.n_images, unit="photo", desc="ladder", disable=None) as bar:
        scores, left_out = climb(
            scorer,
            photos,
            sorted(set(options.sizes)) or SIZES,
            workers=options.workers,
            progress=lambda n_done, _: bar.update(n_done - bar.n),
        )
    summary = summarise_ladder(scores)
    if options.csv:
        with replacing(options.csv, "ladder --csv") as path:
            scores.to_csv(path, index=False, float_format="%.6g")
    for image, reason in left_out.items():
        say(f"left out: {image}: {reason}.")
    is_simulation = bool(scorer.manifest["simulation"])
    shown = summary.assign(size=summary["size"].replace(0, "all")).to_dict("records")
    whole = shown[-1]
    noise = next(row for row in shown if row["distortion"] == "noise" and row["size"] == "all")
    lines = [
        opt.render_rows(shown),
        f"{whole['falling']:,} of {whole['steps']:,} steps fall ({whole['share']:.1%}); the strongest noise scores "
        f"below all weaker ones on {noise['strongest_lowest']:.1%} of {noise['ladders']:,} ladders.",
        *([SIMULATION] if is_simulation else []),
    ]
    document = {
        "model": options.model,
        "photos": int(scores["image"].nunique()),
        "left_out": left_out,
        "simulation": is_simulation,
        "share": whole["share"],
        "strongest_noise_lowest": noise["strongest_lowest"],
        "summary": shown,
    }
    return Output(document, "\n".join(lines))


_EVALUATE_OPTIONS = (
    opt.argument(
        "file FILE",
        "table (CSV, XLSX, Parquet, Feather, JSONL) with columns mos,predicted and, if known, image,group,split,subset",
    ),
    *opt.COLUMNS,
)


def _evaluate(options: argparse.Namespace) -> Output:
    """Judge any predictions, whoever made them, as `featbank fit` judges its own.

    Every metric by split and subset; intervals by group, which are not given for fewer than ten groups; and checks:
    predictions better than raters agree, turned round, squeezed together, off the scale, worse than a constant, or
    on images of groups that were trained on. Rows without MOS or prediction are passed over, and counted.

    For example:
      featbank evaluate runs/starter/predictions.csv
      featbank evaluate theirs.csv --columns image=file,mos=MOS,predicted=score,group=reference
    """
    from featbank.runs.predictions import evaluate_file

    result = evaluate_file(options.file, options.columns, options.mos, options.encoding)
    lines = _metric_lines(result["metrics"])
    for name, scores in result["metrics"].items():
        if scores["plcc_logistic"] is not None:
            mapped = f"PLCC {scores['plcc_logistic']:.4f}, RMSE {scores['rmse_logistic']:.4g}"
            lines.append(f"{name} after a logistic map fitted on these rows: {mapped}")
    graver = [finding for finding in result["findings"] if finding["level"] != "ok"]
    lines += [f"{entry['level'].upper()} {entry['check']}: {entry['sentence']}" for entry in graver]
    return Output(result, "\n".join([*lines, *result["notes"]]))


_REPORT_OPTIONS = (
    opt.argument("runs RUN...", "run folder written by `featbank fit`"),
    opt.argument("--data DATA", "dataset for thumbnails, if it has moved since the run"),
    opt.argument(
        "--out DIR",
        "folder to write to (default: the run's own; for several, `comparison` beside the first)",
    ),
    opt.argument("--resamples N", "bootstrap resamples of a comparison", opt.positive_int, 5000),
)


def _report(options: argparse.Namespace) -> Output:
    """Write a run's report again, or put several runs side by side.

    One RUN: one self-contained HTML file, its figures, and the tables as CSV and Markdown, in the run folder.
    Several: a comparison on the rows that all of them were judged on, with paired bootstrap tests corrected for the
    number of comparisons, wins by split and subset, the drop to the exclusive subset, and cost.

    For example:
      featbank report runs/starter
      featbank report runs/starter runs/icl runs/light --out runs/comparison
    """
    if len(options.runs) > 1:
        return _compare(options)
    from featbank.report.page import report_of_run
    from featbank.report.summary import summarise
    from featbank.runs.folder import read_run

    path = report_of_run(
        Path(options.runs[0]), options.data, None if options.out is None else Path(options.out)
    )
    document: dict[str, Any] = {"report": str(path)}
    if options.json:
        document["summary"] = summarise(read_run(options.runs[0]))
    return Output(document, f"report: {path}")


def _compare(options: argparse.Namespace) -> Output:
    from featbank.atomic import check_folder
    from featbank.report.comparison import COMPARISON, word_comparison, write_comparison
    from featbank.runs.comparison import compare_runs
    from featbank.runs.folder import telling_damage

    folder = Path(options.out) if options.out else Path(options.runs[0]).resolve().parent / "comparison"
    check_folder(folder, COMPARISON, "report --out")
    with telling_damage(", ".join(options.runs)):
        comparison = compare_runs(options.runs, n_resamples=options.resamples)
        path = write_comparison(comparison, folder)
    sentence = word_comparison(comparison).sentence
    document: dict[str, Any] = {
        "report": str(path),
        "verdict": sentence,
        "simulation": comparison.is_simulation,
        "parts": comparison.parts,
        "differences": [
            {key: None if value != value else value for key, value in row.items()}
            for row in comparison.differences.to_dict("records")
        ],
        "wins": {part: comparison.wins(part) for part in comparison.parts},
        "closest": comparison.closest,
        "drops": comparison.drops.to_dict("records"),
        "notes": list(comparison.notes),
    }
    return Output(document, "\n".join([sentence, *comparison.notes, f"report: {path}"]))


_DISTILL_OPTIONS = (
    opt.DATA,
    opt.IMAGES,
    opt.argument("--teacher RUN", "fitted run, or its model.skops", required=True),
    opt.argument(
        "--further PATH...",
        "more photos or folders of photos to learn from, without MOS; those that DATA holds are passed over",
        default=[],
    ),
    opt.argument("--out NAME", "name of the student: a plain word", required=True),
    opt.argument("--student ARCH", "MobileNet V3 or V4 of timm", default="mobilenetv3_small_075"),
    opt.argument("--view VIEW", "view with crops of one size", default="tiles_5x5/center_128"),
    opt.argument(
        "--start NAME",
        "shipped student to start from, 'none' for random weights, auto for the shipped one that fits",
        default="auto",
    ),
    opt.switch(
        "--no-statistics",
        "let the student see what its trunk has learned alone, no natural-scene statistics",
        dest="statistics",
    ),
    opt.argument(
        "--steps N",
        "of the first part, on crops; 0 keeps the trunk it starts from (default: 0 with a shipped student to "
        "start from, else 1500)",
        opt.non_negative_int,
    ),
    opt.argument("--settle-steps N", "of the second part, on whole photos", opt.positive_int, 1500),
    opt.argument("--crops N", "crops kept of each photo", opt.positive_int, 16),
    opt.argument("--seed S", "", opt.seed, 0),
    *(opt.DEVICE, opt.BANK, opt.CODE, opt.WORKERS),
)


def _distill(options: argparse.Namespace) -> Output:
    """Distil a fitted run into a small network that is used like every other encoder.

    The student matches the teacher's features and scores by MSE (report, section 2.6), first on crops of the
    photographs, then, with its trunk at rest, on whole ones. MOS is not needed; more photographs help more than
    more steps. An interrupted call is taken up where it stopped. The result is the encoder featbank:NAME, with its
    weights, description, receipt and model card in the weights folder.

    For example:
      featbank distill demo --teacher runs/starter --further ~/photos --out my_student
    """
    from featbank.encoders import make_encoder

    opt.check_device(options.device)
    make_encoder(
        "timm:mobilenetv3_small_100.lamb_in1k"
    )  # says how to install torch and timm where they are missing
    import torch

    from featbank.bank import Bank
    from featbank.datasets import read_photos
    from featbank.distill.distill import DistillPlan, distill
    from featbank.encoders.student import describe_student, shipped_students

    start = "" if options.start == "none" else options.start
    if start == "auto":
        architecture = f"{options.student}, stem "
        fitting = [n for n in shipped_students() if describe_student(n).architecture.startswith(architecture)]
        start = fitting[0] if fitting else ""
    plan = DistillPlan(
        architecture=options.student,
        statistics=options.statistics,
        view=options.view,
        n_steps=(0 if start else _STEPS) if options.steps is None else options.steps,
        n_crops=options.crops,
        settle_steps=options.settle_steps,
        start=start,
        seed=options.seed,
    )
    is_cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    result = distill(
        opt.read_data(options),
        Path(options.teacher),
        options.out,
        Bank(options.bank),
        plan,
        device="cuda" if is_cuda else "cpu",
        further=read_photos(options.further) if options.further else None,
        workers=options.workers,
        log=say,
    )
    card = (Path(result["folder"]) / "README.md").read_text(encoding="utf-8")
    return Output(result, f"{card}\nfolder: {result['folder']}")


COMMANDS = {
    "fit": Command(_FIT_OPTIONS, _fit),
    "score": Command(_SCORE_OPTIONS, _score),
    "ladder": Command(_LADDER_OPTIONS, _ladder),
    "evaluate": Command(_EVALUATE_OPTIONS, _evaluate),
    "report": Command(_REPORT_OPTIONS, _report),
    "distill": Command(_DISTILL_OPTIONS, _distill),
}
