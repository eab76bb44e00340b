"""Teachers from the model hub, spoken by a server on this machine: revision, checksum, offline."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.encoders import pair

from skill.encoder.checkpoint import load_encoder
from skill.utils.files import canonical_json, sha256

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, `lab/model`, with one commit; what it was asked for."""

    folder: Path
    home: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    def etag(self, file: Path) -> str:
        """As the hub: large files by their SHA-256, small ones by git's SHA-1."""
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            return self.said.setdefault(file.name, sha256(file))
        return sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        if path.startswith(f"/api/models/lab/model/tree/{REVISION}"):
            files = sorted(self.folder.iterdir())
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": self.etag(f)}
                for f in files
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        file = self.folder / path.rpartition("/")[2]
        if path.startswith(f"/lab/model/resolve/{REVISION}/") and file.exists():
            return (
                200,
                file.read_bytes(),
                {"ETag": f'"{self.etag(file)}"', "X-Repo-Commit": REVISION},
            )
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def teacher(self, output: Path, *options: str, **job: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": self.address,
            "HF_HOME": str(self.home), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        environment |= dict.fromkeys(options, "1")
        params = canonical_json({"hub": "lab/model", "revision": REVISION} | job)
        command = [sys.executable, "-m", "skill", "teacher", "t", "--params", params]
        return subprocess.run(
            [*command, "--output", str(output)], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(tmp_path / "served", tmp_path / "a home")
    reference, _ = pair("hubert", large=False)
    reference.save_pretrained(served.folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, content, headers = served.answer(self.path)
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    server.shutdown()


def test_a_teacher_comes_by_revision_and_checksum_and_serves_offline(
    hub: Hub, tmp_path: Path
) -> None:
    output = tmp_path / "t.safetensors"
    right = sha256(hub.folder / "model.safetensors")
    done = hub.teacher(output, sha256=right)
    assert done.returncode == 0, done.stderr + str(hub.asked)
    assert load_encoder(output).config.family == "hubert"
    assert not [path for path in hub.asked if "lab/model" in path and REVISION not in path]
    hub.asked.clear()
    output.unlink()
    assert hub.teacher(output, "HF_HUB_OFFLINE", sha256=right).returncode == 0
    assert output.exists() and not hub.asked

    wrong = hub.teacher(tmp_path / "x.safetensors", "HF_HUB_OFFLINE", sha256="0" * 64)
    assert wrong.returncode == 1 and f"has the SHA-256 {right}, not 000" in wrong.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_weights_that_are_not_what_the_commit_says_are_refused(hub: Hub, tmp_path: Path) -> None:
    output, weights = tmp_path / "t.safetensors", hub.folder / "model.safetensors"
    said = hub.etag(weights)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for _ in range(2):  # fetched, and from the cache
        done = hub.teacher(output)
        assert done.returncode == 1, done.stderr
        assert f"has the SHA-256 {sha256(weights)}, not {said}; delete " in done.stderr
        assert not output.exists()
    blob = done.stderr.rpartition("; delete ")[2].partition(" to fetch it again")[0]
    Path(blob).unlink()
    content[-1] ^= 1
    weights.write_bytes(content)
    assert hub.teacher(output).returncode == 0
    assert load_encoder(output).config.family == "hubert"


def test_what_is_neither_cached_nor_to_be_had_is_an_error_in_words(
    hub: Hub, tmp_path: Path
) -> None:
    output = tmp_path / "t.safetensors"
    offline = hub.teacher(output, "HF_HUB_OFFLINE")
    other = hub.teacher(output, revision="f" * 40)
    for done in (offline, other):
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].strip(), done.stderr
        assert "error: teachers.t: lab/model at" in done.stderr
        assert "is neither cached nor to be had" in done.stderr
        assert "Traceback" not in done.stderr
    assert not output.exists()
