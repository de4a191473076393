import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from msgflo.errors import SpecError
from msgflo.spec.files import load_suites, suite_files


def test_files_and_folders_are_read_in_order(tmp_path):
    (tmp_path / "b.yaml").write_text("topic: B1\n---\ntopic: B2")
    (tmp_path / "a.yml").write_text("topic: A")
    (tmp_path / "c.txt").write_text("no suite")
    (tmp_path / "deeper.yaml").mkdir()
    one = tmp_path / "b.yaml"
    found = load_suites(str(one), str(tmp_path))
    assert [suite.topic for suite in found] == ["B1", "B2", "A", "B1", "B2"]
    assert found[0].file == str(one)


def test_of_a_project_its_folder_of_suites_is_meant(tmp_path):
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "a.yaml").write_text("topic: A")
    assert [suite.topic for suite in load_suites(str(tmp_path))] == ["A"]


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert suite_files(tmp_path / "no") == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.yaml", None, "cannot read"),
        ("latin.yaml", b"topic: \xe4", "not UTF-8"),
        ("wrong.yaml", b"topics: a", "a suite has no topic"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_name(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_suites(str(path))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_a_folder_without_suites_is_told(tmp_path):
    with pytest.raises(SpecError, match="there are no suites in"):
        load_suites(str(tmp_path))


def test_suites_are_fetched_from_addresses():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.yaml" else 404)
            self.end_headers()
            self.wfile.write(b"topic: A")

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        (suite,) = load_suites(f"{url}/a.yaml")
        assert suite.topic == "A"
        with pytest.raises(SpecError, match="404"):
            load_suites(f"{url}/b.yaml")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
