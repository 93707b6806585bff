"""What the demo page lets in, asked by a plain HTTP client of a running page with a stub model."""

import asyncio
import http.client
import json
import re
import sys
import threading
import time
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page is made by gradio, which is not installed")

LOCAL = {"127.0.0.1", "localhost", "::1", None}
watched: list[str] = []  # hosts that this process looked up or connected to


def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        watched.append(arguments[1][0])
    if event == "socket.getaddrinfo":
        watched.append(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0])


sys.addaudithook(watch)


class StubDemo:
    """Stands for ``ofa.demo.service.Demo``: remembers which files it was given, and opens them."""

    def __init__(self):
        from ofa.demo.service import page_tasks

        self.tasks, self.first = (
            {key: page_tasks()[key] for key in ("caption", "answer")},
            "caption",
        )
        self.opened, self.go_on, self.at_work = [], threading.Event(), threading.Event()
        self.go_on.set()

    def subtitle(self):
        return "stub"

    def note(self, key):
        return ""

    def example_texts(self, number, key):
        from ofa.demo.service import questions_about, texts_of

        return [questions_about(number)[key] for _ in texts_of(self.tasks[key])]

    def check(self, path):
        if path is not None:
            self.opened.append(Image.open(path).size)
        return ""

    def ask(self, key, path, text, best, samples, seed):
        from ofa.demo.service import DemoResult

        self.at_work.set()
        self.go_on.wait(60)
        self.check(path)
        image = Image.new("RGB", (9, 7), "blue")
        return DemoResult(answers={f"{key}: {''.join(text)}": 0.5}, drawn=[(image, "one")])


@pytest.fixture(scope="module")
def page():
    from ofa.demo.app import serve

    watched.clear()
    demo = StubDemo()
    page = serve(demo, names=["demo.example.org"])
    assert set(watched) <= LOCAL, watched
    yield SimpleNamespace(
        demo=demo, blocks=page, port=page.server_port, own=f"127.0.0.1:{page.server_port}"
    )
    page.close()


@pytest.fixture(autouse=True)
def nothing_opened_yet(page):
    page.demo.opened.clear()
    watched.clear()
    yield
    assert set(watched) <= LOCAL, watched


def request(page, method, path, body=None, headers=(), host=None, chunked=False):
    """Status and body. Args: headers: pairs."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or page.own)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        if data is not None and not chunked:
            connection.putheader("Content-Length", str(len(data)))
        if isinstance(body, (dict, list)):
            connection.putheader("Content-Type", "application/json")
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        return response.status, response.read(), response
    finally:
        connection.close()


def dependency(page, trigger, inputs):
    """The number of an event of the page. Args: inputs: how many it has."""
    config = json.loads(request(page, "GET", "/config")[1])
    return next(
        one["id"]
        for one in config["dependencies"]
        if len(one["inputs"]) == inputs and any(trigger in target for target in one["targets"])
    )


def ask(page, file, trigger="click", inputs=4, rest=(3, 1, 7), session="abc", headers=(), **more):
    """Ask for a caption of a file. Returns: status, and the last event of the queue or a
    refusal."""
    body = {
        "data": [file, *rest],
        "fn_index": dependency(page, trigger, inputs),
        "session_hash": session,
        **more,
    }
    status, answer, _ = request(page, "POST", "/gradio_api/queue/join", body, headers)
    return (status, answer) if status != 200 else (200, last_event(page, session))


def last_event(page, session):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    try:
        connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
        for line in connection.getresponse():
            if b"process_completed" in line:
                return line
    finally:
        connection.close()


def upload(page, data: bytes, name="photo.png", headers=()) -> str:
    """The path under which the page keeps it."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: image/png\r\n\r\n'
        + data
        + b"\r\n--b--\r\n"
    )
    status, answer, _ = request(
        page,
        "POST",
        "/gradio_api/upload",
        body,
        [("Content-Type", "multipart/form-data; boundary=b"), *headers],
    )
    assert status == 200, answer
    return json.loads(answer)[0]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "secret.png"
    Image.new("RGB", (9, 7), "red").save(path)
    return path


META = {"meta": {"_type": "gradio.FileData"}}


def test_an_upload_and_an_example_are_opened(page, photo):
    path = upload(page, photo.read_bytes())
    for file in (
        {"path": path},
        {"path": path, **META, "url": "http://192.0.2.1/x.png", "is_stream": True},
    ):
        status, answer = ask(page, file)
        assert status == 200 and b'"success":true' in answer and page.demo.opened.pop() == (9, 7)
    config = json.loads(request(page, "GET", "/config")[1])
    examples = next(one for one in config["components"] if one["type"] == "dataset")
    assert ask(page, examples["props"]["samples"][0][0])[0] == 200
    assert page.demo.opened == [(256, 256)]


def choose(page, index):
    """Click on an example."""
    number = dependency(page, "click", 1)
    body = {"data": [index], "fn_index": number, "session_hash": "choose"}
    return request(page, "POST", "/gradio_api/run/predict", body)


def test_old_files_are_deleted_but_the_examples(page):
    from gradio.route_utils import delete_files_created_by_app

    drawn = re.search(rb'"path":"([^"]+)"', ask(page, None)[1])[1].decode()
    example = json.loads(choose(page, 3)[1])["data"][0]["path"]
    files = [f"/gradio_api/file={path}" for path in (drawn, example)]
    assert [request(page, "GET", file)[0] for file in files] == [200, 200]
    delete_files_created_by_app(page.blocks, None)
    assert [request(page, "GET", file)[0] for file in files] == [404, 200]


def visitor(page):
    """What a browser sends after it opened the page."""
    cookie = request(page, "GET", "/")[2].getheader("Set-Cookie")
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    return [("Cookie", f"theme=dark; {cookie.partition(';')[0]}")]


def test_an_upload_is_opened_for_the_visitor_who_made_it(page, tmp_path):
    Image.new("RGB", (8, 6), "green").save(tmp_path / "mine.png")
    data = (tmp_path / "mine.png").read_bytes()
    me, other = visitor(page), visitor(page)
    path = upload(page, data, headers=me)
    assert ask(page, {"path": path}, headers=me)[0] == 200 and page.demo.opened.pop() == (8, 6)
    assert request(page, "GET", f"/gradio_api/file={path}", headers=me)[0] == 200
    forged = [("Cookie", "ofa_visitor=guess")]
    for stranger in (other, [], forged, [("Cookie", "=;,")]):
        status, answer = ask(page, {"path": path}, headers=stranger)
        assert status == 403 and b"not an upload of yours" in answer and not page.demo.opened
        assert request(page, "GET", f"/gradio_api/file={path}", headers=stranger)[0] == 404
    assert upload(page, data, headers=other) == path  # the same content
    assert ask(page, {"path": path}, headers=other)[0] == 200 and page.demo.opened.pop() == (8, 6)
    assert request(page, "GET", "/", headers=me)[2].getheader("Set-Cookie") is None


@pytest.mark.parametrize(
    "more",
    [{}, META, {**META, "is_stream": True}, {"meta": {"_type": "other"}}],
    ids=["bare", "meta", "stream", "forged"],
)
@pytest.mark.parametrize(
    "place",
    [
        "absolute",
        "relative",
        "above",
        "link",
        "folder",
        "address",
        "file address",
        "zero",
        "own code",
    ],
)
def test_no_other_file_is_opened(page, photo, tmp_path, more, place):
    from ofa.demo.app import FILES

    link = tmp_path / "link.png"
    link.symlink_to(photo)
    path = {
        "absolute": str(photo),
        "relative": "README.md",
        "above": f"{FILES.name}/../{photo.parent.parent.name}/secret.png",
        "link": str(link),
        "folder": FILES.name,
        "address": "http://192.0.2.1/x.png",
        "file address": f"file://{photo}",
        "zero": "a\0b",
        "own code": __file__,
    }[place]
    status, answer = ask(page, {"path": path, **more})
    assert status == 403 and b"not an upload of yours" in answer and not page.demo.opened


def test_a_link_inside_of_the_folder_leads_nowhere(page, photo):
    from pathlib import Path

    from ofa.demo.app import FILES

    link = Path(FILES.name) / "link.png"
    link.symlink_to(photo)
    try:
        assert ask(page, {"path": str(link)})[0] == 403
        assert request(page, "GET", f"/gradio_api/file={link}")[0] == 404
    finally:
        link.unlink()


def test_files_are_looked_for_everywhere_in_a_request(page, photo):
    file = {"path": str(photo), **META}
    assert ask(page, None, event_data={"deep": [{"value": file}]})[0] == 403
    assert ask(page, None, trigger_id=1, extra=[[file]])[0] == 403
    check = {"data": [file], "fn_index": dependency(page, "change", 1), "session_hash": "abc"}
    assert request(page, "POST", "/gradio_api/run/predict", check)[0] == 403
    assert (
        request(page, "POST", "/gradio_api/run/predict/", check)[0] == 403 and not page.demo.opened
    )


def test_an_address_without_a_path_is_not_fetched(page):
    for file in (
        {"url": "http://192.0.2.1/x.png", **META},
        {"path": None, "url": "http://192.0.2.1/x.png"},
        "http://192.0.2.1/x.png",
    ):
        ask(page, file)
    assert not page.demo.opened


def test_the_last_of_two_equal_keys_is_what_counts_for_both(page, photo):
    own = upload(page, photo.read_bytes())
    body = json.dumps(
        {
            "data": [{"path": own}, 3, 1, 7],
            "fn_index": dependency(page, "click", 4),
            "session_hash": "abc",
        }
    )
    body = body.replace(
        '"path":', f'"path": {json.dumps(own)}, "path": {json.dumps(str(photo))}, "x":'
    )
    assert (
        request(
            page,
            "POST",
            "/gradio_api/queue/join",
            body.encode(),
            [("Content-Type", "application/json")],
        )[0]
        == 403
    )


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("demo.example.org", 200),
        ("evil.example.org", 403),
        ("evil.example.org:{port}", 403),
        ("127.0.0.1.evil.example.org", 403),
        ("192.168.0.7:{port}", 403),
        ("", 403),
        ("[::1", 403),
        ("localhost@evil.example.org", 403),
    ],
)
def test_the_host_has_to_be_the_pages_own(page, host, status):
    host = host.format(port=page.port)
    assert request(page, "GET", "/config", host=host or " ")[0] == status


@pytest.mark.parametrize(
    "headers, status",
    [
        ([("Origin", "http://{own}")], 200),
        ([("Referer", "http://{own}/x")], 200),
        ([("Sec-Fetch-Site", "same-origin")], 200),
        ([("Origin", "http://evil.example.org")], 403),
        ([("Origin", "null")], 403),
        ([("Origin", "http://127.0.0.1:1")], 403),
        ([("Origin", "http://localhost:3000")], 403),
        ([("Referer", "http://evil.example.org/")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
        ([("Sec-Fetch-Site", "same-site")], 403),
        ([("Origin", "http://{own}"), ("Origin", "http://evil.example.org")], 403),
    ],
)
def test_no_other_page_may_ask(page, headers, status):
    headers = [(name, value.format(own=page.own)) for name, value in headers]
    body = {
        "data": [None, 3, 1, 7],
        "fn_index": dependency(page, "click", 4),
        "session_hash": "origin",
    }
    assert request(page, "POST", "/gradio_api/queue/join", body, headers)[0] == status
    assert request(page, "GET", "/config", headers=headers)[0] == status


def test_a_link_on_another_page_leads_to_the_page(page):
    headers = [("Referer", "http://wiki.example.org/"), ("Sec-Fetch-Site", "cross-site")]
    assert request(page, "GET", "/", headers=headers)[0] == 200
    assert request(page, "GET", "/config", headers=headers)[0] == 403


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/gradio_api/proxy=http://192.0.2.1/x"),
        ("GET", "/gradio_api/file=http://192.0.2.1/x"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file={secret}"),
        ("GET", "/gradio_api/file/{secret}"),
        ("GET", "/gradio_api/file=" + quote("../../etc/passwd", safe="")),
        ("GET", "/file={secret}"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/monitoring"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/stream/x"),
        ("POST", "/login"),
        ("GET", "/gradio_api/custom_component/a/client/b/c"),
        ("GET", "/gradio_api/deep_link"),
        ("PUT", "/config"),
        ("GET", "/run-history/records"),
        ("POST", "/queue/join"),
        ("GET", "//etc/passwd"),
        ("GET", "/assets/../../../../../etc/passwd"),
        ("GET", "/static/%2e%2e/%2e%2e/%2e%2e/blocks.py"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(page, photo, method, path):
    status, answer, _ = request(
        page, method, path.format(secret=photo), {} if method == "POST" else None
    )
    assert status in (403, 404) and b"root:" not in answer and not answer.startswith(b"\x89PNG")


def test_uploads_are_served_but_never_run(page, photo):
    path = upload(page, b"<script>alert(1)</script>", "page.html")
    status, _, response = request(page, "GET", f"/gradio_api/file={path}")
    assert status == 200 and response.headers["x-content-type-options"] == "nosniff"
    assert (
        "attachment" in response.headers["content-disposition"]
        and "default-src 'self'" in response.headers["content-security-policy"]
    )


def test_large_requests_are_refused_before_they_are_read(page):
    status, answer, _ = request(page, "POST", "/gradio_api/queue/join", {"data": ["x" * (2 << 20)]})
    assert status == 413 and b"1 MB" in answer
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", str(65 << 20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert (
        request(
            page,
            "POST",
            "/gradio_api/upload",
            b"0\r\n\r\n",
            [("Transfer-Encoding", "chunked")],
            chunked=True,
        )[0]
        == 411
    )


def test_uploads_and_results_have_one_room_together(page, photo, monkeypatch):
    monkeypatch.setattr("ofa.demo.middleware.ROOM", 10)
    with pytest.raises(AssertionError, match="no room for further uploads"):
        upload(page, photo.read_bytes())
    assert ask(page, None)[0] == 413, "results take room too"


def test_uploads_under_way_take_their_room_too(tmp_path, monkeypatch):
    from ofa.demo import middleware

    monkeypatch.setattr(middleware, "ROOM", 100)
    started = []

    async def upload(gate, size):
        async def send(event):
            started.append(event["status"]) if "status" in event else None

        headers = [(b"host", b"localhost"), (b"content-length", str(size).encode())]
        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}
        await gate(scope, None, send)

    async def uploads():
        finish = asyncio.Event()

        async def app(scope, receive, send):
            started.append("begun")
            await finish.wait()

        gate = middleware.Gate(app, tmp_path, "127.0.0.1")
        first = asyncio.create_task(upload(gate, 60))
        await asyncio.sleep(0)
        await upload(gate, 60)
        finish.set()
        await first
        await upload(gate, 60)

    asyncio.run(uploads())
    assert started == ["begun", 413, "begun"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"[" * 5000 + b"]" * 5000, b"1" * 5000]
)
def test_what_is_no_request_is_one_message(page, body):
    status, answer, _ = request(
        page, "POST", "/gradio_api/queue/join", body, [("Content-Type", "application/json")]
    )
    assert status in (400, 422) and answer.startswith(b'{"detail"')


@pytest.mark.parametrize("index", [18, -1, 10**9, [0, 1], None, "1", 0.5])
def test_an_example_that_is_not_there_cannot_be_chosen(page, index):
    status, answer, _ = choose(page, index)
    assert status != 200, answer


def test_so_many_requests_wait_and_no_more(page):
    import ofa.demo.app as module

    page.demo.at_work.clear()
    page.demo.go_on.clear()
    try:
        body = {"data": [None, 3, 1, 7], "fn_index": dependency(page, "click", 4)}
        found = [
            request(page, "POST", "/gradio_api/queue/join", {**body, "session_hash": "first"})[0]
        ]
        assert page.demo.at_work.wait(30)
        found += [
            request(page, "POST", "/gradio_api/queue/join", {**body, "session_hash": f"s{n}"})[0]
            for n in range(module.WAITING + 2)
        ]
        assert found.count(503) == 2 and found[-2:] == [503, 503]
        assert request(page, "GET", "/config")[0] == 200
    finally:
        page.demo.go_on.set()
    deadline = time.monotonic() + 30
    while (
        json.loads(request(page, "GET", "/gradio_api/queue/status")[1])["queue_size"]
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)


def test_the_page_names_no_other_machine(page):
    status, html, response = request(page, "GET", "/")
    assert status == 200 and not re.findall(rb'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)', html)
    assert "connect-src 'self'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in response.headers["content-security-policy"]


def test_what_the_page_is_made_of_is_served(page):
    html = request(page, "GET", "/")[1].decode()
    names = {
        name.removeprefix("./").lstrip("/")
        for name in re.findall(r'(?:src|href)="([^"#]+)"', html)
        if "://" not in name
    }
    scripts = [name for name in names if name.endswith(".js")]
    assert scripts
    for name in names:
        assert request(page, "GET", f"/{name}")[0] == 200, name
    for path in ("info", "startup-events", "heartbeat/abc", "theme.css", "queue/status"):
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
        connection.request("GET", f"/gradio_api/{path}")
        assert connection.getresponse().status == 200, path
        connection.close()


def test_all_addresses_of_a_machine_lead_to_a_page_for_all():
    from ofa.demo.middleware import Gate

    gate = Gate(None, None, "0.0.0.0", ["demo.example.org"])
    assert all(map(gate.is_own, ("192.168.0.7", "fe80::1", "localhost", "demo.example.org")))
    assert not gate.is_own("evil.example.org")
    assert not Gate(None, None, "192.168.0.7").is_own("192.168.0.8")


def test_messages_cannot_become_markup():
    from ofa.demo.app import notice_of

    assert "broken &lt;i&gt;.jpg" in notice_of("broken <i>.jpg") and notice_of("") == ""
