"""The service: the scorer's numbers over HTTP, refusals with a sentence, limits, counts, an orderly end."""

import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from featbank.cli import main
from featbank.runs.score import Scorer

pytest.importorskip("starlette", reason="needs the extra serve")
from featbank.runs.service import Limits, Service, make_server

BOUNDARY = "photo-0123456789"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
Answer = tuple[int, dict[str, object]]


def as_form(*photos: bytes) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="../../a.jpg"\r\n\r\n'.encode()
        + photo
        + b"\r\n"
        for photo in photos
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(port: int, path: str = "/score", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.read()


def score(port: int, body: bytes, **headers: str) -> Answer:
    status, answer = ask(port, body=body, **headers)
    return status, json.loads(answer)


@pytest.fixture
def start(fitted: Path) -> Iterator[Callable[..., tuple[int, Service]]]:
    """Start a service on a free port, with limits; give its port and itself."""
    started = []

    def starting(**limits: float) -> tuple[int, Service]:
        service = Service(Scorer.load(fitted / "run"), Limits(**limits))  # type: ignore[arg-type]
        server, listener = make_server(service), socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        started.append((service, server, thread))
        return listener.getsockname()[1], service

    yield starting
    for service, server, thread in started:
        server.should_exit = True
        thread.join()
        service.close()


def test_an_upload_has_the_score_of_the_file(
    fitted: Path, start: Callable[..., tuple[int, Service]], tmp_path: Path
) -> None:
    port, service = start()
    photo = fitted / "photos/3.png"
    expected = service.scorer.score([photo]).iloc[0]
    status, raw = score(port, photo.read_bytes())
    assert status == 200
    assert raw["predicted"] == expected["predicted"]
    assert set(raw) == {*service.scorer.score([]).columns} - {"image"}
    assert raw["simulation"] is False
    assert raw["reason"] == ""
    assert score(port, as_form(photo.read_bytes()), **FORM) == (200, raw)


def test_refusals_are_sentences(fitted: Path, start: Callable[..., tuple[int, Service]]) -> None:
    port, service = start(megabytes=0.5)
    photo = (fitted / "photos/0.png").read_bytes()
    for broken in (b"", b"no photo at all", photo[:-40]):
        status, answer = score(port, broken)
        assert status == 422
        assert answer["predicted"] is None
        assert ": " in str(answer["reason"])
    # A path is content like any other, and content that is no image.
    assert score(port, str(fitted / "photos/0.png").encode())[0] == 422
    assert score(port, as_form(), **FORM)[0] == 400
    assert score(port, as_form(photo, photo), **FORM)[0] == 400
    assert score(port, b"no form", **FORM)[0] == 400
    assert ask(port, "/score")[0] == 405
    assert ask(port, "/other")[0] == 404
    status, answer = score(port, bytes(500_001))
    assert status == 413
    assert "0.5 megabytes" in str(answer["error"])
    assert service.statuses == {422: 4, 400: 3, 413: 1}


def test_a_large_body_is_refused_before_it_is_sent(start: Callable[..., tuple[int, Service]]) -> None:
    port, _ = start(megabytes=0.1)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Length", str(10**8))
        connection.endheaders()
        assert connection.getresponse().status == 413
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        # Of unknown length: refused as soon as the limit is passed, though more is said to come.
        connection.putrequest("POST", "/score")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(b"30000\r\n" + bytes(0x30000) + b"\r\n")
        assert connection.getresponse().status == 413


def test_a_body_that_does_not_arrive_gives_its_place_up(start: Callable[..., tuple[int, Service]]) -> None:
    port, service = start(seconds=0.3, queue=0)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Length", "10")
        connection.endheaders(b"12345")
        while not service._n_inside:
            time.sleep(0.01)
        # The only place is taken.
        status, answer = score(port, b"another")
        assert (status, "no more may wait" in str(answer["error"])) == (503, True)
        assert connection.getresponse().status == 408
    assert score(port, b"another")[0] == 422


def test_health_and_metrics(fitted: Path, start: Callable[..., tuple[int, Service]]) -> None:
    port, service = start(threads=2)
    photo = (fitted / "photos/1.png").read_bytes()
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: score(port, photo), range(12)))
    assert {status for status, _ in answers} == {200}
    assert len({answer["predicted"] for _, answer in answers}) == 1
    score(port, b"broken")
    status, health = ask(port, "/health")
    assert (status, json.loads(health)["status"]) == (200, "ok")
    assert json.loads(health)["bands"] == [feature.label for feature in service.scorer.features]
    lines = ask(port, "/metrics")[1].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['featbank_score_requests_total{status="200"}'] == "12"
    assert values['featbank_score_requests_total{status="422"}'] == "1"
    assert values["featbank_score_errors_total"] == "0"
    assert (
        values['featbank_score_seconds_bucket{le="+Inf"}'] == values["featbank_score_seconds_count"] == "13"
    )
    assert float(values["featbank_score_seconds_sum"]) > 0


def test_a_defect_is_told_without_its_traceback(
    start: Callable[..., tuple[int, Service]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, service = start()

    def fail(_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(service.scorer, "score", fail)
    status, answer = score(port, b"photo")
    assert status == 500
    assert "inside" not in str(answer)


def start_command(fitted: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "featbank", "serve", str(fitted / "run"), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if "listening on" in line)
    return process, int(line.partition("http://127.0.0.1:")[2].partition(":")[0])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_ends_in_order(fitted: Path) -> None:
    process, port = start_command(fitted, "--json")
    assert score(port, (fitted / "photos/0.png").read_bytes())[0] == 200
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(out)["statuses"] == {"200": 1}
    assert "Traceback" not in err


def test_the_command_says_what_is_wrong(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(fitted / "run"), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    assert main(["serve", str(fitted / "nothing"), "--port", "0"]) == 1
    assert "no model" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["serve", str(fitted / "run")]) == 1
    assert "pip install 'featbank[serve]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_clients_and_flat_memory(fitted: Path) -> None:
    process, port = start_command(fitted, "--threads", "2", "--json")
    resident = Path(f"/proc/{process.pid}/statm")
    photos = [(fitted / f"photos/{number}.png").read_bytes() for number in range(8)]
    sizes = []

    def client(number: int) -> list[int]:
        statuses = []
        for _ in range(63):
            statuses.append(score(port, photos[number])[0])
            sizes.append(int(resident.read_text().split()[1]) * resource.getpagesize())
        return statuses

    with ThreadPoolExecutor(8) as clients:
        answers = [status for statuses in clients.map(client, range(8)) for status in statuses]
    assert answers == [200] * 504
    assert max(sizes[252:]) < 1.05 * max(sizes[:100])
    assert score(port, photos[0][:-40])[0] == 422
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Length", str(10**8))
        connection.endheaders()
        assert connection.getresponse().status == 413
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["statuses"] == {"200": 504, "413": 1, "422": 1}
