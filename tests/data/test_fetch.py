"""Downloads, from a server in this process: never from the network."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from noiseopt.data import DATASETS, MIRRORS, Source, load
from noiseopt.data.fetch import Download, fetch
from noiseopt.data.formats import read_cifar10, read_mnist
from noiseopt.errors import UserError
from tests.data import data_files as make


class _Server:
    """Serves `folder` and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                asked.append(self.path.lstrip("/"))

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self._http.server_port}/"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.delenv("NOISEOPT_DATA", raising=False)
    server = _Server(tmp_path / "served")
    yield server
    server.close()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_the_second_mirror_is_asked_when_the_first_fails(server: _Server, tmp_path: Path) -> None:
    (server.folder / "good").mkdir()
    (server.folder / "bad").mkdir()
    (server.folder / "good" / "file").write_bytes(b"right")
    (server.folder / "bad" / "file").write_bytes(b"wrong")
    mirrors = tuple(server.address + folder for folder in ("absent/", "bad/", "good/"))
    path = fetch(Download("file", md5=_md5(b"right")), mirrors=mirrors, folder=tmp_path / "cache")
    assert path.read_bytes() == b"right"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["file"]


def test_a_wrong_file_is_an_error_and_leaves_nothing(server: _Server, tmp_path: Path) -> None:
    (server.folder / "file").write_bytes(b"wrong")
    (server.folder / "file.gz").write_bytes(gzip.compress(b"wrong"))
    (server.folder / "cut.gz").write_bytes(gzip.compress(b"right")[:-3])
    content = hashlib.sha256(b"right").hexdigest()
    for download in (
        Download("file", md5=_md5(b"right")),
        Download("file.gz", content_sha256=content),
        Download("cut.gz", content_sha256=content),
        Download("absent", md5=_md5(b"right")),
    ):
        with pytest.raises(UserError, match=rf"^{download.file} must come, undamaged.*fix: check the network"):
            fetch(download, mirrors=(server.address,), folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("by_content", [True, False])
def test_a_damaged_download_in_the_cache_is_fetched_again(server: _Server, tmp_path: Path, by_content: bool) -> None:
    content = gzip.compress(b"right")
    (server.folder / "file.gz").write_bytes(content)
    sha256 = hashlib.sha256(b"right").hexdigest()
    download = Download("file.gz", content_sha256=sha256) if by_content else Download("file.gz", md5=_md5(content))
    for damage in (content[:-1], b"", gzip.compress(b"other"), content):
        make.write(tmp_path / "cache", {"file.gz": damage})
        path = fetch(download, mirrors=(server.address,), folder=tmp_path / "cache")
        assert path.read_bytes() == content
    assert server.asked == ["file.gz"] * 3


def test_a_download_is_loaded_and_kept(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name.split("/")[-1]: content for name, content in make.gzipped(make.mnist()).items()}
    make.write(server.folder, files)
    downloads = tuple(Download(name, md5=_md5(content)) for name, content in files.items())
    monkeypatch.setitem(DATASETS, "toy", Source(about="", read=read_mnist, downloads=downloads))
    monkeypatch.setitem(MIRRORS, "toy", (server.address,))
    for _ in range(2):
        assert len(load("toy", cache_dir=tmp_path / "cache")) == 10
    assert sorted(server.asked) == sorted(files)


def test_a_downloaded_archive_is_decoded_once_and_then_not_needed(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make.tar(make.cifar10(), "w:gz")
    make.write(server.folder, {"toy.tar.gz": archive})
    downloads = (Download("toy.tar.gz", md5=_md5(archive)),)
    monkeypatch.setitem(DATASETS, "toy", Source(about="", read=read_cifar10, downloads=downloads))
    monkeypatch.setitem(MIRRORS, "toy", (server.address,))
    first = load("toy", cache_dir=tmp_path / "cache")
    (tmp_path / "cache" / "downloads" / "toy" / "toy.tar.gz").unlink()
    assert load("toy", cache_dir=tmp_path / "cache").hash == first.hash
    assert server.asked == ["toy.tar.gz"]


def test_usps_as_published(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    # Compressed by other hands, the same content: that is what the checksum is of.
    for name in ("zip.train.gz", "zip.test.gz"):
        (server.folder / name).write_bytes((shared_data / "usps" / name).read_bytes())
    monkeypatch.setitem(MIRRORS, "usps", (server.address,))
    assert load("usps", cache_dir=tmp_path / "cache").name == "usps"


def test_every_download_has_a_mirror_and_a_checksum() -> None:
    for name, source in DATASETS.items():
        assert bool(source.downloads) == (name in MIRRORS)
        for download in source.downloads:
            assert (download.md5 is None) != (download.content_sha256 is None)
        assert all(mirror.endswith("/") for mirror in MIRRORS.get(name, ()))
