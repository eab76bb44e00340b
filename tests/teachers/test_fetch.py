"""Teachers from the model hub, spoken by a server on this machine: revision, checksum, offline."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.encoders import pair
from pydantic import ValidationError

from skill.config.params import Teacher
from skill.encoder.checkpoint import load_encoder
from skill.teachers.fetch import run_teacher
from skill.utils.errors import SkillError
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
    slow: bool = False
    breaks: bool = False

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

    def send(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """All at once; or, of what is large, a part and then little, or nothing more."""
        large = len(content) > 350_000
        if large and self.breaks:
            handler.wfile.write(content[:1000])
            handler.connection.close()
        elif large and self.slow:
            handler.wfile.write(content[:300_000])
            for _ in range(100):
                try:
                    handler.wfile.write(b"x")
                except OSError:  # it has been given up
                    return
                time.sleep(0.1)
        else:
            handler.wfile.write(content)

    def teacher(
        self, output: Path, *options: str, address: str = "", **job: str
    ) -> subprocess.CompletedProcess[str]:
        """The real command; it gives a server up that sends less than 100 kB in half a second."""
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "src"), "HF_ENDPOINT": address or self.address,
            "HF_HOME": str(self.home), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        environment |= dict.fromkeys(options, "1")
        params = canonical_json({"hub": "lab/model", "revision": REVISION} | job)
        impatient = "import runpy; from skill.teachers import hub; "
        impatient += "hub.POLICY = hub.RetryPolicy(stall=0.5, slowest=2e5); "
        impatient += "runpy.run_module('skill', run_name='__main__')"
        command = [sys.executable, "-c", impatient, "teacher", "t", "--params", params]
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
                served.send(self, content)

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

    settings = next((hub.home / "hub").rglob("config.json")).resolve()
    content = settings.read_text()
    settings.write_text(content.replace('"layer_norm_eps": 1e-05', '"layer_norm_eps": 1e-03'))
    changed = hub.teacher(output, "HF_HUB_OFFLINE", sha256=right)
    assert changed.returncode == 1 and "config.json has the SHA-1" in changed.stderr
    settings.write_text(content)

    wrong = hub.teacher(tmp_path / "x.safetensors", "HF_HUB_OFFLINE", sha256="0" * 64)
    assert wrong.returncode == 1 and f"has the SHA-256 {right}, not 000" in wrong.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_the_checksum_of_a_folder_covers_its_settings(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pair("hubert", large=True)[0].save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    (folder / "README.md").write_text("not covered")
    listed = "sha256sum config.json model.safetensors preprocessor_config.json | sha256sum"
    printed = subprocess.run(listed, shell=True, cwd=folder, capture_output=True, check=True)
    job = Teacher(source=str(folder), sha256=printed.stdout.decode()[:64])
    run_teacher("t", job, tmp_path / "t.safetensors")
    assert load_encoder(tmp_path / "t.safetensors").config.normalize_waveform
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    with pytest.raises(SkillError, match=r"model.safetensors, preprocessor.*has the SHA-256"):
        run_teacher("t", job, tmp_path / "t.safetensors")


@pytest.mark.parametrize("digits", ["", "0" * 63, "g" * 64, "A" * 64])
def test_a_checksum_has_64_digits(digits: str) -> None:
    with pytest.raises(ValidationError, match="sha256 is not 64 hexadecimal digits"):
        Teacher(source="x", sha256=digits)


def test_shards_come_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    pair("hubert", large=False)[0].save_pretrained(hub.folder, max_shard_size="100KB")
    (hub.folder / "model.safetensors").unlink()
    done = hub.teacher(tmp_path / "t.safetensors")
    assert done.returncode == 0, done.stderr
    assert load_encoder(tmp_path / "t.safetensors").config.family == "hubert"


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


def test_what_is_neither_cached_nor_downloadable_is_an_error_in_words(
    hub: Hub, tmp_path: Path
) -> None:
    output = tmp_path / "t.safetensors"
    offline = hub.teacher(output, "HF_HUB_OFFLINE")
    other = hub.teacher(output, revision="f" * 40)
    for done in (offline, other):
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].strip(), done.stderr
        assert "error: teachers.t: lab/model at" in done.stderr
        assert "is neither cached nor could it be" in done.stderr
        assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_slow_hub_is_given_up(hub: Hub, tmp_path: Path) -> None:
    output, weights = tmp_path / "t.safetensors", hub.folder / "model.safetensors"
    assert weights.stat().st_size > 350_000
    hub.slow = True
    done = hub.teacher(output)
    assert done.returncode == 1 and "sends less than 200000 bytes a second" in done.stderr
    assert "Traceback" not in done.stderr and not output.exists()
    hub.slow = False
    hub.asked.clear()
    done = hub.teacher(output)
    assert done.returncode == 0, done.stderr
    assert not [path for path in hub.asked if path.endswith("/config.json")]  # it had arrived


def test_no_message_shows_a_password(hub: Hub, tmp_path: Path) -> None:
    """Neither an error, nor the notes of the hub's library, nor the file that is made."""
    output = tmp_path / "t.safetensors"
    address = hub.address.replace("://", "://user:s3cret@")
    made = hub.teacher(output, address=address)
    assert made.returncode == 0 and b"s3cret" not in output.read_bytes(), made.stderr
    gone = hub.teacher(output, address=address, revision="f" * 40)
    shutil.rmtree(hub.home)
    hub.breaks = True
    broken = hub.teacher(output, address=address)
    for done in (made, gone, broken):
        assert "s3cret" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    assert broken.returncode == gone.returncode == 1
    assert "Error while downloading from http://***@127.0.0.1" in broken.stderr


@pytest.mark.parametrize("name", ["", "../x", "https://u:p@h/x", "a/b/c", "a b", "/x", "a/-b", "é"])
def test_a_hubs_model_has_a_name(name: str) -> None:
    with pytest.raises(ValidationError, match=r"OWNER/NAME|exactly one"):
        Teacher(hub=name, revision=REVISION)
