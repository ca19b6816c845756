"""A warm scorer behind HTTP: photos come as bodies of requests, scores go back as JSON; no path is ever taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import uvicorn
from python_multipart.exceptions import FormParserError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from featbank import __version__
from featbank.errors import FeatbankError
from featbank.runs.score import Scorer, json_rows

_LOG = logging.getLogger("featbank")

BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends in seconds of the histogram of `/metrics`."""
MAX_CONNECTIONS: Final = 1000
LAST_SECONDS: Final = 30
"""Given to the photos in hand when the service ends."""
_CLIENT_GONE: Final = 499


@dataclass(frozen=True)
class Limits:
    """What the service takes at most.

    Attributes
    ----------
    threads : int
        Photos scored at once.
    queue : int
        Photos that may wait for a thread, or are being received.
    megabytes : float
        Size of a request's body, in 10**6 bytes.
    seconds : float
        Time in which a body must have arrived.
    """

    threads: int = 1
    queue: int = 32
    megabytes: float = 50.0
    seconds: float = 60.0


class Service:
    """Answers ``POST /score``, ``GET /health`` and ``GET /metrics`` with one scorer.

    Uploads are held in memory, or, as parts of a form, in unnamed temporary files; at most ``threads + queue`` of them.

    Parameters
    ----------
    scorer : Scorer
        Tried once on noise, so that all its networks are loaded before the first photo.
    limits : Limits

    Attributes
    ----------
    app : Starlette
        An ASGI application, for `listen` or any other server.
    statuses : Counter of int
        Answers of ``/score`` by HTTP status.

    Raises
    ------
    EncoderError
        If a network of the model cannot run here.
    """

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        self.scorer, self.limits = scorer, limits
        self.statuses: Counter[int] = Counter()
        self._seconds, self._in_bucket = 0.0, [0] * (len(BUCKETS) + 1)
        self._n_inside = 0
        scorer.score([np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)])
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="score")
        self.app = Starlette(
            routes=[
                Route("/score", self._score, methods=["POST"]),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _refuse},
        )

    def close(self) -> None:
        """Wait for the photos in hand; those that wait are left."""
        self._pool.shutdown(cancel_futures=True)

    async def _score(self, request: Request) -> Response:
        started = time.perf_counter()
        status, answer = await self._answer(request)
        spent = time.perf_counter() - started
        self.statuses[status] += 1
        self._seconds += spent
        self._in_bucket[sum(spent > end for end in BUCKETS)] += 1
        # Of a body that was not read to its end nothing more is to be read.
        headers = {408: {"connection": "close"}, 413: {"connection": "close"}, 503: {"retry-after": "1"}}
        return JSONResponse(answer, status, headers.get(status))

    async def _answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and what is said."""
        limits = self.limits
        if self._n_inside >= limits.threads + limits.queue:
            return 503, {"error": f"{self._n_inside} photos are in hand, and no more may wait. Try again."}
        self._n_inside += 1
        try:
            async with asyncio.timeout(limits.seconds):
                data = await self._read(request)
            scored = self._pool.submit(self._predict, data)
            row = await asyncio.wrap_future(scored)
        except TimeoutError:
            return 408, {"error": f"the body must arrive within {limits.seconds:g} seconds."}
        except HTTPException as error:
            return error.status_code, {"error": error.detail}
        except ClientDisconnect:
            return _CLIENT_GONE, {"error": "the client went away."}
        except MemoryError:
            return 503, {"error": "out of memory for this photo. Send a smaller one, or try again."}
        except FeatbankError as error:
            return 500, {"error": str(error)}
        except Exception:  # noqa: BLE001 - the last resort: a client never meets a traceback
            _LOG.exception("unexpected error; please report it")
            return 500, {"error": "unexpected error, a defect of featbank; the service's log has more."}
        finally:
            self._n_inside -= 1
        return (422 if row["reason"] else 200), row

    async def _read(self, request: Request) -> bytes:
        """Return the photo's bytes: the body, or the one file of a form."""
        limit = int(self.limits.megabytes * 1e6)
        declared = request.headers.get("content-length", "0")
        refusal = HTTPException(
            413, f"a body may have {self.limits.megabytes:g} megabytes. Send a smaller photo."
        )
        if not declared.isdigit() or int(declared) > limit:
            raise refusal
        body = bytearray()
        async for chunk in request.stream():
            if len(body) + len(chunk) > limit:
                raise refusal
            body += chunk
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return bytes(body)
        whole = {"type": "http.request", "body": bytes(body), "more_body": False}
        try:
            async with Request(request.scope, _once(whole)).form(max_files=1, max_fields=16) as form:
                files = [part for part in form.values() if isinstance(part, UploadFile)]
                if files:
                    return await files[0].read()
        except FormParserError as error:
            raise HTTPException(400, f"the form cannot be read ({error}).") from error
        raise HTTPException(
            400, "the form must have a file, and has none. Send the photo as one of its parts."
        )

    def _predict(self, data: bytes) -> dict[str, Any]:
        """Score one photo, on a thread of the pool; the place in the sequence says nothing."""
        (row,) = json_rows(self.scorer.score([data]))
        del row["image"]
        return row

    async def _health(self, request: Request) -> Response:
        manifest, limits = self.scorer.manifest, self.limits
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "recipe": manifest["recipe"],
                "mos_range": manifest["mos_range"],
                "simulation": manifest["simulation"],
                "bands": [feature.label for feature in self.scorer.features],
                "threads": limits.threads,
                "queue": limits.queue,
                "max_megabytes": limits.megabytes,
            }
        )

    async def _metrics(self, request: Request) -> Response:
        """Return the counts in Prometheus' text format."""
        n_requests, name = self.statuses.total(), "featbank_score_seconds"
        n_errors = sum(count for status, count in self.statuses.items() if status >= 500)
        ends = [*(f"{end:g}" for end in BUCKETS), "+Inf"]
        lines = [
            "# HELP featbank_score_requests_total Requests to /score, by HTTP status.",
            "# TYPE featbank_score_requests_total counter",
            *(
                f'featbank_score_requests_total{{status="{status}"}} {count}'
                for status, count in sorted(self.statuses.items())
            ),
            "# HELP featbank_score_errors_total Requests to /score that failed by the service's own fault.",
            "# TYPE featbank_score_errors_total counter",
            f"featbank_score_errors_total {n_errors}",
            "# HELP featbank_score_in_hand Photos being received, waiting or scored.",
            "# TYPE featbank_score_in_hand gauge",
            f"featbank_score_in_hand {self._n_inside}",
            f"# HELP {name} Seconds from the head of a request to its answer.",
            f"# TYPE {name} histogram",
            *(
                f'{name}_bucket{{le="{end}"}} {count}'
                for end, count in zip(ends, accumulate(self._in_bucket), strict=True)
            ),
            f"{name}_sum {self._seconds:.6f}",
            f"{name}_count {n_requests}",
        ]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _once(message: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return a channel that gives one message."""

    async def receive() -> dict[str, Any]:
        return message

    return receive


async def _refuse(request: Request, error: Exception) -> Response:
    """Say in JSON what Starlette says in plain text: no such page, no such method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = f"{request.method} {request.url.path}: there is POST /score, GET /health and GET /metrics."
    return JSONResponse({"error": detail}, status)


def make_server(service: Service) -> uvicorn.Server:
    """Make the server of a service; setting its ``should_exit`` ends it."""
    return uvicorn.Server(
        uvicorn.Config(
            service.app,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
    )


def listen(service: Service, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; photos in hand are finished, `LAST_SECONDS` long."""
    # Once it has ended in order, the server raises the signal again, which is for the caller.
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(service):
        make_server(service).run(sockets=[listener])
