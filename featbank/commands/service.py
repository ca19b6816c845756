"""The commands serve and export: a fitted model for other programs."""

from __future__ import annotations

import argparse
import importlib.util
import socket
from pathlib import Path

from featbank import commands as opt
from featbank.commands import SIMULATION, Command, Output, say
from featbank.errors import RunError

_MODEL = opt.argument("model MODEL", "model.skops of a run, or the run folder")

_SERVE_OPTIONS = (
    _MODEL,
    opt.argument(
        "--host ADDRESS",
        "where to listen; any other address lets other machines send photos, and nothing asks who they are",
        default="127.0.0.1",
    ),
    opt.argument("--port P", "0 takes one that is free", opt.whole(0, 65535), 8000),
    opt.argument("--threads N", "photos scored at once (default: the processors)", opt.positive_int),
    opt.argument("--queue N", "photos that may wait; more are refused with 503", opt.non_negative_int, 32),
    opt.argument("--max-megabytes M", "larger bodies are refused with 413", opt.positive_number, 50.0),
    *(opt.CODE, opt.DEVICE, opt.ENGINE),
)


def _serve(options: argparse.Namespace) -> Output:
    """Answer requests for scores on this machine, with one model in memory, until it is stopped.

    POST /score takes a photo as the body, or as the one file of a form, and answers as `featbank score --json` lists a
    photo: predicted MOS, interval, unlike_training, off_scale, simulation, reason. A photo that cannot be read is
    answered with 422 and the reason. GET /health describes the model, GET /metrics counts for Prometheus. SIGINT and
    SIGTERM let the photos in hand finish and end it with exit code 0.

    For example:
      featbank serve runs/starter --port 8000 &
      curl --data-binary @photo.jpg http://127.0.0.1:8000/score
      curl --form photo=@photo.jpg http://127.0.0.1:8000/score
    """
    _check_installed("serve", "serve", ("starlette", "uvicorn", "python_multipart"))
    from joblib import cpu_count

    from featbank.runs.score import Scorer
    from featbank.runs.service import Limits, Service, listen
    from featbank.workers import keep_freed_memory

    opt.apply_compute(options)
    keep_freed_memory()
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=128)
    except OSError as error:
        raise RunError(
            f"serve: cannot listen on {options.host} port {options.port} ({error.strerror or error}). Choose another "
            "--port, or --port 0 for one that is free."
        ) from error
    with listener:
        limits = Limits(options.threads or cpu_count(), options.queue, options.max_megabytes)
        service = Service(Scorer.load(options.model), limits)
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listener.getsockname()[1]}"
        is_simulation = bool(service.scorer.manifest["simulation"])
        if is_simulation:
            say(SIMULATION)
        say(f"listening on {address}: POST /score, GET /health, GET /metrics. Ctrl-C ends it.")
        listen(service, listener)
    statuses = {str(status): count for status, count in sorted(service.statuses.items())}
    document = {
        "address": address,
        "model": options.model,
        "simulation": is_simulation,
        "requests": service.statuses.total(),
        "statuses": statuses,
    }
    counts = ", ".join(f"{count} with {status}" for status, count in statuses.items())
    return Output(
        document, f"{service.statuses.total()} requests for scores answered{': ' * bool(counts)}{counts}"
    )


_EXPORT_OPTIONS = (
    _MODEL,
    opt.argument("--onnx FILE", "the file to write", required=True),
    opt.argument(
        "--check PHOTO...", "photos on which the file is compared with the model as well", default=[]
    ),
    opt.CODE,
)


def _export(options: argparse.Namespace) -> Output:
    """Write a fitted model as one ONNX file: encoders, aggregation of crops and readout in one graph.

    Every band must be a network or a student, and the readout a ridge or a support-vector regressor; weight-free bands
    have no graph and are refused by name. Inputs are the crops of the model's views, named in the file's metadata under
    the key featbank; the output is the predicted MOS. The file is compared with the model on two made-up photos and
    those of --check, and written only if they agree to 1e-4 of the MOS scale.

    For example:
      featbank export runs/light --onnx light.onnx --check photos/a.jpg photos/b.jpg
    """
    _check_installed("export", "onnx", ("onnx",))
    from featbank.runs.onnx_file import export_onnx
    from featbank.runs.score import Scorer

    document = export_onnx(Scorer.load(options.model), Path(options.onnx), options.check)
    lines = [f"{entry['name']}: {entry['view']}, scale {entry['scale']}" for entry in document["inputs"]]
    lines.append(
        f"{document['file']}: {document['megabytes']:g} MB, at most {document['max_deviation']:.1e} from the model on "
        f"{document['compared']} photos"
    )
    if document["simulation"]:
        lines.append(SIMULATION)
    return Output(document, "\n".join(lines))


def _check_installed(command: str, extra: str, modules: tuple[str, ...]) -> None:
    """Refuse a command whose extra is not installed."""
    if absent := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise RunError(
            f"{command}: {', '.join(absent)} must be installed. Run `pip install 'featbank[{extra}]'`."
        )


COMMANDS = {"serve": Command(_SERVE_OPTIONS, _serve), "export": Command(_EXPORT_OPTIONS, _export)}
