"""Files of the hub: a server of this machine speaks as much of the hub's protocol as a download
needs."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.pipeline.weights import fetch
from bench.study.errors import ConfigError
from bench.study.settings import WeightsConfig

ROOT = Path(__file__).resolve().parent.parent
CONTENT = bytes(range(256)) * 9000
FILE = "hf://owner/repo/folder/w.pth"


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """`files` by repository and path, the requests in `asked`; `breaks`:
    how many downloads end halfway."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked, self.breaks = {"owner/repo": {"folder/w.pth": CONTENT}}, [], 0
        self.gated = set()

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(self.files).encode()).hexdigest()


class Answer(http.server.BaseHTTPRequestHandler):
    """HEAD names size, sum and commit of a file, GET gives it,
    from a byte on where the client asks for that."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def refuse(self, status, code):
        self.send_response(status)
        for name, value in {
            "X-Error-Code": code,
            "X-Repo-Commit": self.server.commit,
            "Content-Length": "0",
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def do_HEAD(self):  # noqa: N802
        self.answer(body=False)

    def do_GET(self):  # noqa: N802
        self.answer(body=True)

    def answer(self, body):
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        repo, _, path = self.path[1:].partition("/resolve/main/")
        if repo in self.server.gated and "Authorization" not in self.headers:
            return self.refuse(403, "GatedRepo")
        if repo not in self.server.files:
            return self.refuse(404, "RepoNotFound")
        if path not in self.server.files[repo]:
            return self.refuse(404, "EntryNotFound")
        content = self.server.files[repo][path]
        first = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{sum_of(content)}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if body and self.server.breaks > 0:
            self.server.breaks -= 1
            self.wfile.write(content[first : len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content[first:])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of this machine, and an empty cache."""
    from huggingface_hub import constants

    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
    # read from the environment once a process
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def weights(file=FILE, sha256=None) -> WeightsConfig:
    return WeightsConfig(file=file, sha256=sha256 or sum_of(CONTENT))


def test_a_file_of_the_hub_is_downloaded_once(hub):
    """Catches a download that is repeated, a copy that asks the network,
    and bytes that the server did not give."""
    assert fetch(weights(), "weights").read_bytes() == CONTENT
    asked = list(hub.asked)
    assert [command for command, _, _ in asked] == ["HEAD", "GET"]
    assert {path for _, path, _ in asked} == {"/owner/repo/resolve/main/folder/w.pth"}
    assert fetch(weights(), "weights").read_bytes() == CONTENT and hub.asked == asked


def test_a_broken_download_goes_on_where_it_ended(hub):
    """Catches a client that begins a large file anew, or keeps half of it."""
    hub.breaks = 1
    assert fetch(weights(), "weights").read_bytes() == CONTENT
    assert [command for command, _, _ in hub.asked] == ["HEAD", "GET", "GET"]


def test_a_newer_file_of_the_same_name_is_downloaded(hub):
    """Catches a cache that hides a new file from a study that names its sum."""
    fetch(weights(), "weights")
    newer = CONTENT[::-1]
    hub.files["owner/repo"]["folder/w.pth"] = newer
    assert fetch(weights(sha256=sum_of(newer)), "weights").read_bytes() == newer


def test_a_file_with_another_sum_is_never_given(hub):
    """Catches a file that is read although its sum is wrong,
    and a damaged copy without a way out."""
    with pytest.raises(
        ConfigError, match=f"{sum_of(CONTENT)}, {'a' * 64} expected.*remove it"
    ) as error:
        fetch(weights(sha256="a" * 64), "models.m.weights")
    assert str(error.value).startswith("models.m.weights: /") and "\n" not in str(error.value)
    copy = fetch(weights(), "weights")
    copy.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="remove it, and it is downloaded again") as error:
        fetch(weights(), "weights")
    assert str(copy) in str(error.value)
    copy.unlink()
    assert fetch(weights(), "weights").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "file, words",
    [
        ("hf://owner/repo/none.pth", "the repository has no such file"),
        ("hf://owner/none/w.pth", "no such repository, or a private one that needs HF_TOKEN"),
        ("hf://owner/gated/w.pth", "its page asks for your consent"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(hub, file, words):
    """Catches a paragraph or a traceback where a file is missing, and a line without key,
    file or remedy."""
    hub.gated.add("owner/gated")
    with pytest.raises(ConfigError) as error:
        fetch(weights(file), "weights")
    assert str(error.value) == (
        f"weights: {file} cannot be downloaded "
        f"({words}{'; give it there and set HF_TOKEN' if 'gated' in file else ''});"
        " put a copy somewhere and give its path"
    )


def test_a_token_opens_a_gated_file(hub, monkeypatch):
    """Catches a download that leaves the user's token at home."""
    hub.gated.add("owner/repo")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(weights(), "weights").read_bytes() == CONTENT
    assert {token for _, _, token in hub.asked} == {"Bearer hf_secret"}


def test_without_a_sum_or_an_address_nothing_is_asked(hub, monkeypatch):
    """Catches weights that nobody vouched for, and an endpoint that is passed on unread."""
    with pytest.raises(ConfigError, match="needs its sha256"):
        fetch(WeightsConfig(file=FILE), "weights")
    monkeypatch.setenv("HF_ENDPOINT", "ftp://somewhere")
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT: 'ftp://somewhere'"):
        fetch(weights(), "weights")
    assert hub.asked == []


def of_a_process(tmp_path, **variables) -> str:
    """What `fetch` says in a process of its own, which reads its environment anew."""
    code = (
        "import sys; from bench.pipeline.weights import fetch; "
        "from bench.study.errors import ConfigError\n"
        "from bench.study.settings import WeightsConfig\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        f"try: print(fetch(WeightsConfig(file={FILE!r}, sha256={sum_of(CONTENT)!r}), 'weights'))\n"
        "except ConfigError as error: print(error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_offline_and_the_cache_follow_the_environment(hub, tmp_path):
    """Catches an import of the hub's library before a file of it is asked for, a cache of our own,
    an offline error that is long."""
    said = of_a_process(tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith(f"weights: {FILE} cannot be downloaded (HF_HUB_OFFLINE is set")
    copy = of_a_process(tmp_path)
    assert copy.startswith(str(tmp_path / "home" / "hub")) and Path(copy).read_bytes() == CONTENT
    assert of_a_process(tmp_path, HF_HUB_OFFLINE="1") == copy


def test_no_network_is_one_line(hub, monkeypatch):
    """Catches a client's traceback where nobody answers."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the tries
    with pytest.raises(
        ConfigError,
        match=r"^weights: hf://.* cannot be downloaded \(.*(refused|connect).*give its path$",
    ):
        fetch(weights(), "weights")
