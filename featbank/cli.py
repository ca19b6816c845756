"""The ``featbank`` command: finds the subcommand, runs it, prints its result, turns errors into sentences.

Nothing heavy is imported before a subcommand is known, so ``featbank --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import inspect
import io
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from featbank import __version__
from featbank.commands import Command, add_output_options
from featbank.errors import FeatbankError, redact
from featbank.workers import own_workers, without_current_folder

COMMANDS = {
    "demo": ("data", "write the built-in photo set: rendered 4K JPEGs in the UHD-IQA layout"),
    "check": ("data", "read a dataset and report counts, ranges, overlaps and broken files"),
    "features": ("features", "compute the features a bank lacks; resumable"),
    "fit": ("fit", "fit, evaluate and write a run folder"),
    "score": ("fit", "predict the MOS of new images with a fitted model"),
    "ladder": ("fit", "see whether a model's scores fall while photos get worse"),
    "evaluate": ("fit", "judge any predictions: metrics, intervals, checks"),
    "search": ("search", "find the best band subsets under a budget; resumable, shared by processes"),
    "distill": ("fit", "train a small network on a fitted run's features and scores"),
    "serve": ("service", "answer requests for scores with one model in memory"),
    "export": ("service", "write a model of networks as one ONNX file"),
    "doctor": ("data", "say what this machine and installation offer and lack"),
    "report": ("fit", "write a run's report again, or compare several runs"),
    "protocol": ("search", "repeated splits, another dataset, fewer photos: how far a score holds"),
    "leaderboard": ("search", "place runs in Tables 1 to 3 of the challenge report"),
    "budget": ("weights", "list the GMACs of a recipe's passes against its budget"),
    "list": ("weights", "list encoders, views, recipes or datasets"),
    "weights": ("weights", "list, fetch or add the weights of network encoders"),
    "bank": ("features", "look into and look after a feature bank"),
}
"""Every subcommand with its module under ``commands`` and its one-line help."""

USAGE_ERROR = 2
INTERRUPTED = 130
"""As shells count it: 128 and the number of SIGINT."""
READER_GONE = 141
"""128 and the number of SIGPIPE, as of any tool whose reader goes away (``featbank ... | head``)."""

_FILES = {"DATA", "DIR", "FILE", "MODEL", "OTHER", "PATH", "R", "RUN"}
"""What stands for a file or folder in the usage of a command."""
_SHELLS = ("bash", "zsh", "tcsh")

_interruptions: list[int] = []
"""Signals that asked for the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments without the program's name; None takes the process's own.

    Returns
    -------
    int
        0 when done, 1 when the work could not be done, 2 for a usage error, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Names of files in a foreign encoding come out as they went in; what a terminal lacks is spelt out.
        if isinstance(stream, io.TextIOWrapper):
            is_utf8 = stream.encoding.casefold() in {"utf-8", "utf8"}
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Off the main thread (a test, a notebook) signals stay the caller's matter.
    with contextlib.suppress(ValueError):
        for number in handlers:
            signal.signal(number, _interrupt)
    try:
        code = _main(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _say_interrupted("--json" in arguments)
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except OSError as error:  # what a command could not do has been told: this is its output
        _discard_output()
        return _fail(f"the result cannot be written to standard output: {error.strerror or error}.", False)
    finally:
        _interruptions.clear()
        with contextlib.suppress(ValueError):
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return code


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        print(f"featbank {__version__}")
        return 0
    if arguments[0] == "--print-completion":
        if tuple(arguments[1:]) not in {(shell,) for shell in _SHELLS}:
            print(f"featbank: --print-completion takes one of {', '.join(_SHELLS)}.", file=sys.stderr)
            return USAGE_ERROR
        print(_completion(arguments[1]))
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean `featbank {near[0]}`?" if near else ""
        print(f"featbank: no command {name!r}.{hint} See `featbank --help`.", file=sys.stderr)
        return USAGE_ERROR
    return _run(name, arguments[1:])


def make_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, as its ``--help`` and the documentation show it."""
    command = _command(name)
    parser = argparse.ArgumentParser(
        prog=f"featbank {name}",
        description=inspect.getdoc(command.run),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _declare(parser, command)
    return parser


def _declare(parser: argparse.ArgumentParser, command: Command) -> None:
    for declare in command.arguments:
        declare(parser)
    add_output_options(parser)


def _completion(shell: str) -> str:
    """Write a script that completes commands, options, choices and files in a shell."""
    import shtab

    whole = argparse.ArgumentParser(prog="featbank")
    kinds = whole.add_subparsers()
    parsers = [kinds.add_parser(name, help=text) for name, (_, text) in COMMANDS.items()]
    for parser, name in zip(parsers, COMMANDS, strict=True):
        _declare(parser, _command(name))
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(whole, shell=shell)
    return text


def _command(name: str) -> Command:
    command: Command = importlib.import_module(f"featbank.commands.{COMMANDS[name][0]}").COMMANDS[name]
    return command


def _run(name: str, arguments: list[str]) -> int:
    parser = make_parser(name)
    command = _command(name)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has printed its message
        return int(stop.code or 0)
    as_json = bool(options.json)
    if options.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("featbank").setLevel(logging.DEBUG)
    # A worker process that grew is replaced by a fresh one between two jobs; nothing is lost, and no one can act on it.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs", category=UserWarning)
    try:
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(own_workers() if hasattr(options, "workers") else without_current_folder())
            if getattr(options, "truncated", None) == "keep":
                from featbank.images import keeping_truncated

                contexts.enter_context(keeping_truncated())
            if getattr(options, "allow_code", False):
                from featbank.encoders import allow_code

                contexts.enter_context(allow_code())
            if options.quiet:
                contexts.enter_context(contextlib.redirect_stderr(contexts.enter_context(_nowhere())))
            output = command.run(options)
    except FeatbankError as error:
        return _fail(str(error), as_json)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except MemoryError:
        return _fail("out of memory; close other programs or give fewer --workers", as_json)
    except OSError as error:
        return _fail(f"{name}: {error.strerror or error} ({error.filename or 'no file named'})", as_json)
    except Exception as error:  # the last resort: a user never meets a traceback
        if _interruptions:  # a library that was being imported made something else of it
            raise KeyboardInterrupt from error
        if options.verbose or os.environ.get("FEATBANK_DEBUG"):
            traceback.print_exc()
        if "BrokenProcessPool" in {
            base.__name__ for base in type(error).__mro__
        }:  # by name: importing it is slow
            return _fail(
                f"{name}: a worker process was killed, most often for lack of memory; what was finished is kept. "
                "Close other programs or give fewer --workers, then run the same command again.",
                as_json,
            )
        return _fail(
            f"{name}: unexpected {type(error).__name__}: {error}. This is a defect of featbank; please report it "
            "with the output of the same command with --verbose.",
            as_json,
        )
    if as_json:
        print(redact(json.dumps(output.document, indent=2, allow_nan=False, default=str)))
    elif output.text:
        print(redact(output.text))
    return int(output.exit_code)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _fail(message: str, as_json: bool) -> int:
    message = redact(message)
    print(f"featbank: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}))
    return 1


def _say_interrupted(as_json: bool) -> int:
    _fail("interrupted; what was finished is kept, run the same command again to go on", as_json)
    return INTERRUPTED


def _discard_output() -> None:
    """Let what is still to be written go nowhere, or the interpreter would complain at its end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _interruptions.append(signum)
    signal.signal(signum, signal.SIG_DFL)  # who asks twice does not wait
    raise KeyboardInterrupt


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"featbank {__version__}: photographs to quality scores with frozen features and classic regression",
        "",
        "usage: featbank COMMAND [options]",
        "",
        *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "Every command has --help with an example, --json for one JSON document on standard output, -q and -v.",
        f"featbank --version; featbank --print-completion {'|'.join(_SHELLS)} for completion in a shell.",
        "example: featbank demo demo && featbank features demo --recipe starter && featbank fit demo --recipe starter",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
