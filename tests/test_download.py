"""The download scripts' functions against a server: whole, resumed, damaged, checked by the hub's own hash, offline."""

import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from helpers.paths import SCRIPTS

CONTENT = bytes(range(256)) * 40
HASH = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under any name, from any byte on; remembers what was asked for."""

    first_bytes: list[int]

    def do_HEAD(self) -> None:
        self.send_response(302)
        if "nameless" not in self.path:
            self.send_header("X-Linked-ETag", f'"{HASH}"')
        self.end_headers()

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.first_bytes.append(first)
        part = CONTENT[first:]
        self.send_response(416 if not part else 206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.first_bytes = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", f". {SCRIPTS}/download.sh; {line}"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("there", [0, 1000, len(CONTENT)])
def test_goes_on_where_it_stopped(tmp_path: Path, server: ThreadingHTTPServer, there: int) -> None:
    file = tmp_path / "folder/file"
    if there:
        file.parent.mkdir()
        (file.parent / "file.part").write_bytes(CONTENT[:there])
    told = shell(f"fetch sha256sum {HASH[:8]} http://127.0.0.1:{server.server_port}/file {file}")
    assert told.returncode == 0, told.stderr
    assert file.read_bytes() == CONTENT
    assert Handler.first_bytes == [there]
    assert "already exists" in shell(f"fetch sha256sum {HASH} http://127.0.0.1:1/file {file}").stdout


def test_a_damaged_file_never_gets_its_name(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    (tmp_path / "file.part").write_bytes(b"something else")
    told = shell(f"fetch sha256sum {HASH} http://127.0.0.1:{server.server_port}/file {tmp_path}/file")
    assert told.returncode == 2
    assert "expected" in told.stderr.splitlines()[-1]
    assert not (tmp_path / "file").exists()


def test_the_hubs_own_hash(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    told = shell(f"fetch_from_hub http://127.0.0.1:{server.server_port}/file {tmp_path}/file")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "file").read_bytes() == CONTENT
    told = shell(f"fetch_from_hub http://127.0.0.1:{server.server_port}/nameless {tmp_path}/other")
    assert told.returncode == 2
    assert "no hash" in told.stderr.splitlines()[-1]
    assert not (tmp_path / "other").exists()


def test_offline_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "curl").write_text("#!/bin/sh\nexit 6\n")
    (tmp_path / "curl").chmod(0o755)
    told = shell(f"PATH={tmp_path}:$PATH; fetch sha256sum {HASH} http://nowhere.invalid/file {tmp_path}/file")
    assert told.returncode == 2
    assert "are you online" in told.stderr.splitlines()[-1]


def test_unpacking_again_replaces_a_half_written_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as packed:
        packed.writestr("music/one.mp3", CONTENT)
    (tmp_path / "music").mkdir()
    (tmp_path / "music/one.mp3").write_bytes(CONTENT[:1000])
    told = shell(f"unpack {tmp_path}/music.zip {tmp_path}")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "music/one.mp3").read_bytes() == CONTENT
    assert "is already unpacked" in shell(f"unpack {tmp_path}/music.zip {tmp_path}").stdout
