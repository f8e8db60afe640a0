"""A server in this process that answers as the Hugging Face hub does for datasets and models.

Files lie in memory. ``Hub.cut_after`` ends every answer after that many bytes of a file, as a
connection that breaks does.
"""

import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

import datasets
import huggingface_hub
from huggingface_hub import HfFileSystem, constants

from xtremely.eval.data import hub as reader

LFS = 64  # bytes from which a file is kept apart, with its SHA-256


@dataclass
class Hub:
    """What the server has and what it was asked.

    Attributes:
        commits: (repository, commit) -> path -> content.
        branches: (repository, branch) -> commit.
        got: (path, first byte) of every file that was asked for.
        cut_after: bytes of a file after which the connection breaks; None for none.
        gate: what a file waits for after its first half, if it is set.
        gated: a part of the paths of the files that wait.
        waiting: set while a file waits.
    """

    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    got: list = field(default_factory=list)
    cut_after: int | None = None
    gate: Event | None = None
    gated: str = ".parquet"
    waiting: Event = field(default_factory=Event)
    url: str = ""

    def add(self, repository, files, revision="main", commit=None):
        """Put a commit's files up, with a branch that leads to it."""
        named = json.dumps([repository, sorted(files)]) + revision
        commit = commit or hashlib.sha1(named.encode()).hexdigest()
        self.commits[repository, commit] = files
        self.branches[repository, revision] = commit
        return commit

    def find(self, repository, revision):
        """The commit of a revision and its files."""
        commit = self.branches.get((repository, revision), revision)
        return commit, self.commits.get((repository, commit))


def _about(path, content):
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    about = {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
    return {**about, "path": path, **({"lfs": lfs} if len(content) >= LFS else {})}


def _tree(files, folder, recursive):
    inside = f"{folder}/" if folder else ""
    found = {}
    for path, content in files.items():
        if not path.startswith(inside):
            continue
        rest = path.removeprefix(inside).split("/")
        for depth in range(1, len(rest)):
            parent = inside + "/".join(rest[:depth])
            if recursive or depth == 1:
                found[parent] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": parent}
        if recursive or len(rest) == 1:
            found[path] = _about(path, content)
    return list(found.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format, *values):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(
            r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path
        )
        file = re.fullmatch(
            r"(?:/datasets)?/([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path
        )
        if api:
            self.about(api[1], api[2] or "revision", api[3] or "main")
        elif file:
            self.file(*file.groups())
        else:
            self.refuse("EntryNotFound")

    def about(self, repository, what, rest):
        found = re.fullmatch(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.*))?", rest)
        commit, files = self.hub.find(repository, found[1])
        length = int(self.headers.get("Content-Length") or 0)
        asked = self.rfile.read(length)
        if files is None:
            known = any(name == repository for name, _ in self.hub.commits)
            self.refuse("RevisionNotFound" if known else "RepoNotFound")
        elif what == "revision":
            siblings = [{"rfilename": path} for path in files]
            self.send({"id": repository, "sha": commit, "private": False, "siblings": siblings})
        elif what == "tree":
            listed = _tree(files, found[2] or "", "recursive=true" in self.path.lower())
            self.send(listed) if listed or not found[2] else self.refuse("EntryNotFound")
        else:
            paths = json.loads(asked)["paths"]
            whole = _tree(files, "", True)
            self.send([one for one in whole if one["path"] in paths])

    def file(self, repository, revision, path):
        commit, files = self.hub.find(repository, revision)
        if files is None or path not in files:
            self.refuse("RevisionNotFound" if files is None else "EntryNotFound")
            return
        content = files[path]
        first, last = 0, len(content) - 1
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span:
            first, last = int(span[1]), min(last, int(span[2] or last))
        part = content[first : last + 1]
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.got.append((path, first))
        if self.hub.gate is not None and self.hub.gated in path:
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.hub.waiting.set()
            self.hub.gate.wait(60)
            part = part[len(part) // 2 :]
        if self.hub.cut_after is not None and path.endswith((".parquet", ".safetensors")):
            part = part[: max(0, self.hub.cut_after - first)]
            self.close_connection = True
        self.wfile.write(part)

    def refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def served():
    """A hub that is up inside the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def reached(hub, folder, monkeypatch):
    """Let this process take a hub for the real one inside the block, with a cache of its own."""
    patched = (
        (constants, "ENDPOINT", hub.url),
        (constants, "HF_HUB_OFFLINE", False),
        (constants, "HF_HUB_CACHE", str(folder / "hub")),
        (
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        ),
        (datasets.config, "HF_ENDPOINT", hub.url),
        (datasets.config, "HF_HUB_OFFLINE", False),
        (datasets.config, "HF_DATASETS_CACHE", folder / "datasets"),
        (datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
        (huggingface_hub.utils._http.time, "sleep", lambda seconds: None),
    )
    for owner, name, value in patched:
        monkeypatch.setattr(owner, name, value)
    forget()
    yield hub
    forget()


def forget():
    """Forget what was asked of another hub."""
    reader.commit_of.cache_clear()
    reader.configurations.cache_clear()
    reader.open_builder.cache_clear()
    HfFileSystem.clear_instance_cache()
