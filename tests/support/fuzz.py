"""Damages valid inputs of every reader at random, reads them in fenced processes, and counts what became of them.

``python -m tests.support.fuzz --inputs 20000 --out fuzz.jsonl`` runs for hours; called again with the same file it goes
on where it stopped. One line for each input: reader, number, file, outcome. ``read`` and ``refused`` (by a sentence)
are fine; ``defect`` (another exception), ``dead``, ``slow`` and ``large`` are not, and end the command with 1. A batch
is a process that may take `MAX_BYTES` more than it had after reading valid inputs, and `MAX_S` seconds for each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featbank.errors import FeatbankError
from tests.support import tiny_formats as tiny
from tests.support.mutants import DAMAGES, valid_files

MAX_BYTES = 1 << 30
MAX_S = 10
SLOWNESS = float(os.environ.get("FUZZ_SLOWNESS", "4"))
"""Seconds by the clock for a second of a quiet machine."""
BATCH = 200
FINE = frozenset({"read", "refused"})
NASTY = tuple(
    word.encode("latin-1")
    for word in (
        *(
            "nan",
            "inf",
            "-1",
            "1e999",
            "9" * 400,
            "9" * 5000,
            "\0",
            "\xff\xfe",
            "\xef\xbb\xbf",
            "\xe9",
            "[" * 2000,
            "{",
        ),
        *(
            '"',
            "'",
            ",",
            ";",
            "\n",
            "true",
            "null",
            "0x10",
            "%s",
            "://",
            "/dev/zero",
            "../../etc/passwd",
            "file:x.py:X",
        ),
    )
)
"""Put into texts at random."""

Files = dict[str, bytes]


def _table(header: str, row: str, n: int = 12) -> bytes:
    return "\n".join([header, *(row.format(n=n) for n in range(n))]).encode() + b"\n"


def _photos() -> Iterator[Files]:
    for suffix, data in valid_files():
        yield {f"x.{suffix}": data}
    rgb = tiny.save(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3), "PPM")
    yield {"x.ppm": rgb}
    for image_format, suffix in (("AVIF", "avif"), ("JPEG2000", "jp2")):
        yield {f"x.{suffix}": tiny.save(np.zeros((40, 40, 3), np.uint8), image_format)}


def _datasets() -> Iterator[Files]:
    import scipy.io

    from tests.support.datasets import write_xlsx

    yield {"x.csv": _table("path,mos,split,group", "{n}.jpg,{n}.5,training,g{n}")}
    yield {"x.csv": _table("image_name;MOS;c1;c5;set", "{n}.jpg;3.{n};1;2;training")}
    yield {"uhd-iqa-metadata.csv": _table("image_name,quality_mos,set,views", "{n}.jpg,.5,training,{n}")}
    yield {"mos_with_names.txt": _table("5.5 I01_01_1.bmp", "5.{n} I02_01_{n}.bmp")}
    marker = json.dumps({"seed": 0, "n": 12, "version": 1}).encode()
    yield {
        "featbank-demo.json": marker,
        "uhd-iqa-metadata.csv": _table("image_name,quality_mos,set", "{n}.jpg,.5,test"),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = [("Image name", "MOS"), *((f"{n}.jpg", n) for n in range(12))]
        yield {"MOS and Image attribute scores.xlsx": write_xlsx(Path(folder) / "x.xlsx", rows).read_bytes()}
    mos, names = io.BytesIO(), io.BytesIO()
    scipy.io.savemat(mos, {"AllMOS_release": np.arange(12.0)})
    cells = np.array([[f"{n}.jpg"] for n in range(12)], dtype=object)
    scipy.io.savemat(names, {"AllImages_release": cells})
    yield {"AllMOS_release.mat": mos.getvalue(), "AllImages_release.mat": names.getvalue()}


def _features() -> Iterator[Files]:
    import pandas as pd
    import scipy.io

    matrix = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    names = [f"{n}.jpg" for n in range(12)]
    frame = pd.DataFrame(matrix, columns=list("abcde")).assign(image=names)
    for suffix in ("npy", "npz", "mat", "csv", "parquet"):
        buffer = io.BytesIO()
        if suffix == "npy":
            np.save(buffer, matrix)
        elif suffix == "npz":
            np.savez(buffer, features=matrix, names=np.array(names))
        elif suffix == "mat":
            scipy.io.savemat(buffer, {"features": matrix, "names": np.array(names, dtype=object)})
        else:
            frame.to_csv(buffer, index=False) if suffix == "csv" else frame.to_parquet(buffer)
        yield {f"x.{suffix}": buffer.getvalue()}


def _recipes() -> Iterator[Files]:
    from featbank.recipes.reading import builtin_recipes

    yield from ({"x.toml": path.read_bytes()} for path in builtin_recipes().values())


def _runs() -> Iterator[Files]:
    from tests.support.run_folder import RunOptions, write_run_folder

    with tempfile.TemporaryDirectory() as folder:
        run = write_run_folder(
            Path(folder) / "run", RunOptions(counts={"training": 30, "validation": 0, "test": 20})
        )
        yield {path.name: path.read_bytes() for path in run.iterdir()}


def _models() -> Iterator[Files]:
    from featbank.recipes.reading import parse_recipe
    from featbank.runs.fit import FitOptions, fit_run
    from tests.support.imported_run import RECIPE, prepare

    with tempfile.TemporaryDirectory() as folder:
        for estimator in ("ridge", "rbf-svr"):
            place = Path(folder) / estimator
            table, _, bank = prepare(place)
            recipe = parse_recipe(f'{RECIPE}estimator = "{estimator}"\nC = [1.0]\ngamma = [0.1]\n', "x")
            fit_run(table, recipe, bank, place / "run", FitOptions(workers=1, permutations=0))
            yield {"model.skops": (place / "run" / "model.skops").read_bytes()}


def _banks() -> Iterator[Files]:
    from featbank.bank import Bank
    from featbank.extract import FeatureRequest, extract
    from tests.support.datasets import write_image

    with tempfile.TemporaryDirectory() as folder:
        images = [(str(n), str(write_image(Path(folder) / f"{n}.png", seed=n))) for n in range(4)]
        (Path(folder) / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
        images.append(("4", str(Path(folder) / "4.png")))
        extract(
            images, [FeatureRequest("classic:layout", "squash_16x16")], Bank(Path(folder) / "bank"), workers=1
        )
        bank = Path(folder) / "bank"
        yield {str(path.relative_to(bank)): path.read_bytes() for path in bank.rglob("*") if path.is_file()}


def _weights() -> Iterator[Files]:
    import torch
    from safetensors.torch import save

    state = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    yield {"x.safetensors": save(state)}
    yield {"x.pth": buffer.getvalue()}


def _students() -> Iterator[Files]:
    from importlib import resources

    yield {
        "student.json": (
            resources.files("featbank.encoders") / "students" / "mobile" / "student.json"
        ).read_bytes()
    }


def _read_photo(folder: Path, name: str) -> None:
    from featbank.images import read_photo

    read_photo(folder / name)


def _read_dataset(folder: Path, name: str) -> None:
    from featbank.datasets import check_dataset, read_dataset

    check_dataset(read_dataset(folder if name != "x.csv" else folder / name), decode=False, workers=1)


def _read_features(folder: Path, name: str) -> None:
    from featbank.bank.imported import read_feature_file

    read_feature_file(folder / name)


def _read_recipe(folder: Path, name: str) -> None:
    from featbank.recipes.reading import parse_recipe, read_recipe

    recipe = read_recipe(str(folder / name))
    parse_recipe(recipe.to_toml(), "again")


def _read_run(folder: Path, name: str) -> None:
    from featbank.runs.folder import read_run, telling_damage
    from featbank.runs.trust import disagreements

    with telling_damage(folder):
        disagreements(read_run(folder))


def _read_model(folder: Path, name: str) -> None:
    from featbank.runs.model import load_run_model

    load_run_model(folder / name)


def _read_bank(folder: Path, name: str) -> None:
    from featbank.bank import Bank

    bank = Bank(folder, read_only=True)
    bank.verify()
    for feature in bank.features():
        keys = list(feature.keys())
        feature.read(keys)
    bank.images.failures()


def _read_weights(folder: Path, name: str) -> None:
    from featbank.encoders.networks.loading import read_published

    read_published(folder / name)


def _read_student(folder: Path, name: str) -> None:
    from featbank.encoders.student import parse_description

    parse_description((folder / name).read_text(errors="replace"), name).count_macs(224, 224)


READERS: dict[str, tuple[Callable[[], Iterator[Files]], Callable[[Path, str], None], int]] = {
    "photo": (_photos, _read_photo, 30),
    "dataset": (_datasets, _read_dataset, 20),
    "recipe": (_recipes, _read_recipe, 10),
    "features": (_features, _read_features, 5),
    "model": (_models, _read_model, 10),
    "run": (_runs, _read_run, 10),
    "bank": (_banks, _read_bank, 5),
    "weights": (_weights, _read_weights, 5),
    "student": (_students, _read_student, 5),
}
"""Valid inputs, what reads them, and the share of all inputs in percent. The first file in a folder's list is named."""


def _damaged(files: Files, dice: random.Random, pool: list[tuple[str, bytes]]) -> tuple[Files, str]:
    """Damage one of the files that belong together; its name is that of the input."""
    name = dice.choice(sorted(files))
    data = files[name]
    for _ in range(dice.choice((1, 1, 2, 3))):
        if dice.random() < 0.35:
            at, word = dice.randrange(len(data) + 1), dice.choice(NASTY)
            data = data[:at] + word + data[at + dice.choice((0, len(word))) :]
        else:
            data = dice.choice(DAMAGES)(data, dice, pool)
    return files | {name: data}, name


def _serve(reader: str, seed: int, numbers: range) -> None:
    """Read a batch of inputs and print a line for each; the process is fenced in after the libraries are loaded."""
    make, read, _ = READERS[reader]
    out, valid = os.dup(1), list(make())
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    pool = [(name, data) for files in valid for name, data in files.items()]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "x"
        for files in valid:
            _lay(folder, files)
            read(folder, next(iter(files)))  # a valid input that cannot be read would prove nothing
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, _too_slow)
        for number in numbers:
            dice = random.Random(f"{seed}/{reader}/{number}")
            files, name = _damaged(dice.choice(valid), dice, pool)
            _lay(folder, files)
            signal.setitimer(signal.ITIMER_REAL, MAX_S * SLOWNESS)
            os.write(out, json.dumps([number, name, *_outcome(read, folder, name)]).encode() + b"\n")
            signal.setitimer(signal.ITIMER_REAL, 0)


def _outcome(read: Callable[[Path, str], None], folder: Path, name: str) -> tuple[str, str]:
    try:
        read(folder, name)
    except FeatbankError as error:
        return "refused", str(error)[:200]
    except MemoryError:
        return "large", traceback.format_exc()[-1500:]
    except TimeoutError:
        return "slow", traceback.format_exc()[-1500:]
    except Exception:  # noqa: BLE001 - this is what is looked for
        return "defect", traceback.format_exc()[-1500:]
    return "read", ""


def _too_slow(*_: object) -> None:
    raise TimeoutError


def _lay(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def run_batch(reader: str, seed: int, numbers: range) -> Iterator[list[Any]]:
    """Yield ``[number, file, outcome, detail]`` for each input, also for those that their process did not survive."""
    while numbers:
        command = [sys.executable, "-m", "tests.support.fuzz", "--serve", reader, str(seed)]
        command += [str(numbers.start), str(numbers.stop)]
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with tempfile.TemporaryFile("w+") as errors:
            done = numbers.start
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env=os.environ | limits, text=True
            ) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    yield json.loads(line)
                    done += 1
            code = child.returncode
            if done < numbers.stop:
                errors.seek(0)
                yield [done, "", "dead", f"exit {code}: {errors.read()[-1500:]}"]
        numbers = range(done + 1, numbers.stop)


def main() -> int:
    """Read as many damaged inputs as asked for, going on where an earlier call stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve[0], int(options.serve[1]), range(int(options.serve[2]), int(options.serve[3])))
        return 0
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    found = [json.loads(line) for line in lines]
    with options.out.open("a") as out:
        for reader in options.readers:
            first = sum(entry[0] == reader for entry in found)
            stop = options.inputs * READERS[reader][2] // 100
            for start in range(first, stop, BATCH):
                for entry in run_batch(reader, options.seed, range(start, min(stop, start + BATCH))):
                    found.append([reader, *entry])
                    out.write(json.dumps(found[-1]) + "\n")
                    out.flush()
    counts = Counter((entry[0], entry[3]) for entry in found)
    sys.stdout.write(
        "".join(f"{reader:10}{outcome:10}{n}\n" for (reader, outcome), n in sorted(counts.items()))
    )
    return 0 if {outcome for _, outcome in counts} <= FINE else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
