"""An S3 server on this machine, in a process of its own that ends with the test; nobody's credentials work there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
BUCKET = "photos"
START_S = 60.0


@dataclass
class S3Server:
    """A running server, with the environment under which processes of the tests find it."""

    process: subprocess.Popen[bytes]
    address: str
    log_file: Path
    options: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For subprocesses: where the server is, and credentials that it accepts."""
        return (
            os.environ
            | self.options
            | {
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": self.address,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "OPENBLAS_NUM_THREADS": "1",
            }
        )

    def log(self) -> str:
        """All requests so far, one a line."""
        return self.log_file.read_text()

    def python(self, code: str, *arguments: str) -> str:
        """Run code in a process that has ``fs``, an s3fs file system; returns what it prints."""
        start = "import sys, s3fs\nfs = s3fs.S3FileSystem(use_listings_cache=False)\n"
        done = subprocess.run(
            [sys.executable, "-c", start + code, *arguments],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upload(self, folder: Path, to: str) -> None:
        """Copy a folder into the store."""
        self.python("fs.put(sys.argv[1] + '/', sys.argv[2], recursive=True)", str(folder), to)

    def download(self, url: str, folder: Path) -> Path:
        """Copy everything below a URL into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        code = (
            "import pathlib\n"
            "for name in fs.find(sys.argv[1]):\n"
            "    below = name[len(sys.argv[1].removeprefix('s3://')):].lstrip('/')\n"
            "    target = pathlib.Path(sys.argv[2]) / below\n"
            "    target.parent.mkdir(parents=True, exist_ok=True)\n"
            "    target.write_bytes(fs.cat_file(name))\n"
        )
        self.python(code, url, str(folder))
        return folder

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``featbank`` with these arguments."""
        return subprocess.Popen(
            [sys.executable, "-m", "featbank", *arguments],
            env=self.environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``featbank`` to its end; returns its exit status and what it printed."""
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def stop(self) -> None:
        """Let the server go away, as by a cut of its power."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def s3_server(folder: Path, *, refuses: bool = False) -> Iterator[S3Server]:
    """Run a server with one empty bucket for as long as the context; or one that refuses everybody everything."""
    log = folder / "s3-server.log"
    environment = dict(os.environ)
    if refuses:
        environment["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    try:
        deadline = time.monotonic() + START_S
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:[1-9]\d*)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        server = S3Server(process, found[1], log)
        if not refuses:
            server.python(f"fs.mkdir({BUCKET!r})")
        yield server
    finally:
        process.kill()
        process.wait()
