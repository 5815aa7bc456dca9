"""Downloads: what is fetched is checked, resumed, and unpacked into its folder alone."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from datamodules.sets.download import download, unpack

CONTENT = bytes(range(251)) * 37


@pytest.fixture
def server():
    """A server of CONTENT that understands ranges; `asked` has the range of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append(wanted)
            start = int(wanted[6:-1]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start : start + self.server.breaks_after])

        def log_message(self, *_):
            pass

    asked = []
    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        http.asked, http.breaks_after = asked, len(CONTENT)
        http.url = f"http://127.0.0.1:{http.server_port}/data.bin"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_with_its_checksum_is_fetched_once(server, tmp_path, kind):
    checksum = f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}"
    for _ in range(2):
        path = download(server.url, tmp_path / "new" / "data.bin", checksum=checksum)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_broken_download_goes_on_where_it_ended(server, tmp_path):
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    server.breaks_after = 1000
    with pytest.raises(OSError, match=r"broke off.*The same command goes on"):
        download(server.url, tmp_path / "data.bin", checksum=checksum)
    server.breaks_after = len(CONTENT)
    assert download(server.url, tmp_path / "data.bin", checksum=checksum).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_file_of_another_checksum_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(OSError, match="is not the file whose checksum is md5:0"):
        download(server.url, tmp_path / "data.bin", checksum="md5:" + "0" * 32)
    assert not list(tmp_path.iterdir())


def test_an_absent_server_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"Cannot fetch http://127\.0\.0\.1:9/x"):
        download("http://127.0.0.1:9/x", tmp_path / "x", checksum=None)


def test_where_one_address_fails_the_next_is_tried(server, tmp_path):
    absent = "http://127.0.0.1:9/x"
    assert download([absent, server.url], tmp_path / "x", checksum=None).read_bytes() == CONTENT
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9/x: .*Connection refused\. The same"):
        download([absent, absent], tmp_path / "y", checksum=None)


def write_archive(path, names, link=None):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "inside")
        return
    with tarfile.open(path, "w:gz") as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 6
            file.addfile(info, io.BytesIO(b"inside"))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            file.addfile(info)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_an_archive_is_unpacked(tmp_path, kind):
    write_archive(tmp_path / kind, ["deep/a.txt", "b..txt"])
    unpack(tmp_path / kind, tmp_path / "out")
    assert (tmp_path / "out/deep/a.txt").read_text() == "inside"
    assert (tmp_path / "out/b..txt").exists()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("name", ["../evil.txt", "ok/../../evil.txt", "/tmp/evil.txt", "C:\\evil"])
def test_an_archive_that_leaves_its_folder_is_refused_whole(tmp_path, kind, name):
    write_archive(tmp_path / kind, ["good.txt", name])
    with pytest.raises(ValueError, match=r"a\.\S+ is not unpacked: it holds .*outside the folder"):
        unpack(tmp_path / kind, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "evil.txt").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_archive(tmp_path / "a.tar.gz", ["good.txt"], link="../../elsewhere")
    with pytest.raises(ValueError, match="is not unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "link").is_symlink()


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"a\.zip is not unpacked"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
