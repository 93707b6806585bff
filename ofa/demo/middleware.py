"""What the page of ``ofa demo`` lets in: ASGI middleware in front of Gradio, whose server can do
more than the page needs: fetch addresses, pass requests on, take any path that a client names.

    Host     names of this machine and of ``--allow-host``; others may have been made to point here
    Origin   the page itself: other pages in the same browser are refused
    route    those of the page
    body     JSON of at most 1 MB whose files are examples or uploads of this visitor; an upload of
             at most 64 MB

A visitor is known by a cookie that the page sets; programs that keep no cookies are one visitor.
"""

import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

LOCAL = ("localhost", "127.0.0.1", "::1")
WILDCARDS = ("", "0.0.0.0", "::")
API = "/gradio_api/"
FILE, UPLOAD, JOIN = API + "file=", API + "upload", API + "queue/join"
READ_ROUTES = (
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *("/assets/*", "/static/*", "/svelte/*"),
    *(API + name for name in ("info", "startup-events", "app_id", "user", "token", "theme.css")),
    *(API + name for name in ("queue/data", "queue/status", "upload_progress", "heartbeat/*")),
    FILE + "*",
)
POST_ROUTES = UPLOAD, JOIN, *(API + name for name in ("run/*", "cancel", "reset"))
VISITOR = "ofa_visitor"
COOKIE = VISITOR + "={}; Path=/; HttpOnly; SameSite=Strict"  # not for scripts and other pages
LARGEST_JSON = 1 << 20
LARGEST_UPLOAD = 64 << 20  # bytes of a request
ROOM = 1 << 30  # bytes of all uploads and results
FILE_KEYS = ("size", "orig_name", "mime_type")
HEADERS = {
    "content-security-policy": (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
        "img-src 'self' data: blob:; connect-src 'self'; "
        "object-src 'none'; form-action 'self'; base-uri 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
FOREIGN_FILE = (
    "This file is not an upload of yours. Upload an image, or choose one of the examples."
)


class Gate:
    """Middleware.

    Args: folder: with the uploads and the examples. host: the address that the page is bound to.
    names: further host names under which it is reached.
    """

    def __init__(self, app: Callable, folder: Path, host: str, names: Collection[str] = ()):
        self.app, self.folder = app, folder
        self.any_address = host in WILDCARDS
        # bytes of the uploads under way, which lie elsewhere until they are complete
        self.arriving = 0
        # real path of an upload -> who uploaded it; equal uploads have one path
        self.owners: dict[Path, set[str]] = {}
        own = socket.gethostname() if self.any_address else host
        self.hosts = {name.lower() for name in (*LOCAL, own, *names)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})  # the page uses none
        request = Request(scope, receive)
        path, visitor = scope["path"], request.cookies.get(VISITOR, "")
        try:
            self.check_sender(request)
            coming = self.check_route(request, visitor)
            if path != UPLOAD and request.method == "POST":
                receive = replay(scope, self.checked_body(await request.body(), visitor), receive)
        except HTTPException as refusal:
            answer = JSONResponse({"detail": refusal.detail}, refusal.status_code, HEADERS)
            return await answer(scope, receive, send)
        except ClientDisconnect:
            return None
        uploaded = bytearray()

        async def send_with_headers(event: dict) -> None:
            if event["type"] == "http.response.start":
                headers = MutableHeaders(scope=event)
                for name, value in HEADERS.items():  # besides those of gradio
                    headers.append(name, value)
                if path == "/" and not visitor:
                    headers.append("set-cookie", COOKIE.format(secrets.token_urlsafe(16)))
            elif path == UPLOAD and event["type"] == "http.response.body":
                uploaded.extend(event.get("body", b""))
                if not event.get("more_body"):
                    self.remember(bytes(uploaded), visitor)
            await send(event)

        self.arriving += coming
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.arriving -= coming

    def check_sender(self, request: Request) -> None:
        """Raises: HTTPException if the host is not this page's, or another page asks."""
        values = request.headers.getlist
        # a link on another page may lead here
        opens = request.method in ("GET", "HEAD") and request.scope["path"] == "/"
        found, senders = values("host"), values("origin") or ([] if opens else values("referer"))
        try:
            name = urlsplit(f"//{found[0]}").hostname if len(found) == 1 else None
            others = {urlsplit(sender).netloc.lower() for sender in senders} - {found[0].lower()}
        except (ValueError, IndexError):  # no address
            name, others = None, set()
        if name is None or not self.is_own(name):
            raise HTTPException(
                403,
                f"This page is not served under the name {name or 'that was given'}; "
                "start ofa demo with --allow-host NAME.",
            )
        sites = set(values("sec-fetch-site")) - {"same-origin", "none"}
        if others or (sites and not opens):
            raise HTTPException(
                403, "Another page asked for this; open the page of ofa demo itself."
            )

    def is_own(self, name: str) -> bool:
        """An address cannot be made to point elsewhere, a name can."""
        with suppress(ValueError):
            if self.any_address and ipaddress.ip_address(name):
                return True
        return name in self.hosts

    def check_route(self, request: Request, visitor: str) -> int:
        """Bytes of the upload that it brings. Raises: HTTPException for what is not the page's, or
        too large."""
        path = request.scope["path"]
        if request.method in ("GET", "HEAD"):
            if path.startswith(FILE) and not self.may_open(path.removeprefix(FILE), visitor):
                raise HTTPException(404, "There is no such file.")
            if any(fnmatchcase(path, route) for route in READ_ROUTES):
                return 0
        if request.method == "POST" and any(fnmatchcase(path, one) for one in POST_ROUTES):
            length = ",".join(request.headers.getlist("content-length"))
            most = LARGEST_UPLOAD if path == UPLOAD else LARGEST_JSON
            # in chunks it comes with as many bytes as it likes
            if not re.fullmatch("[0-9]{1,18}", length) or "transfer-encoding" in request.headers:
                raise HTTPException(411, "The request does not tell its length.")
            if int(length) > most:
                raise HTTPException(413, f"This is too large: {most >> 20} MB are the most.")
            if path not in (UPLOAD, JOIN):
                return 0
            if int(length) + self.arriving + folder_size(self.folder) > ROOM:
                raise HTTPException(
                    413, "There is no room for further uploads and results now. Try again later."
                )
            return int(length) if path == UPLOAD else 0
        raise HTTPException(404, "The page of ofa demo has no such address.")

    def remember(self, answer: bytes, visitor: str) -> None:
        """Whose the uploads are. Args: answer: of the server: JSON, a list of paths if all went
        well."""
        with suppress(ValueError):
            paths = json.loads(answer)
            for path in paths if isinstance(paths, list) else ():
                self.owners.setdefault(Path(path).resolve(), set()).add(visitor)

    def may_open(self, path: Any, visitor: str) -> bool:
        """Whether it is an example, a result or an upload of this visitor."""
        if not isinstance(path, str) or not is_below(path, self.folder):
            return False
        return visitor in self.owners.get(Path(path).resolve(), {visitor})

    def checked_body(self, body: bytes, visitor: str) -> bytes:
        """JSON anew, as it is understood here, without addresses to fetch files from. Raises:
        HTTPException if it is none, or names a file that the visitor may not open."""

        def checked(value: dict[str, Any]) -> dict[str, Any]:
            path = value.get("path")
            if path is None:
                return {key: one for key, one in value.items() if key != "url"}
            if not self.may_open(path, visitor):
                raise HTTPException(403, FOREIGN_FILE)
            about = {key: value[key] for key in FILE_KEYS if isinstance(value.get(key), (str, int))}
            meta = {"_type": "gradio.FileData"}
            return {"path": str(Path(path).resolve()), **about, "meta": meta}

        try:
            return json.dumps(json.loads(body, object_hook=checked)).encode()
        except (ValueError, RecursionError):
            raise HTTPException(400, "The request is not understood.") from None


def is_below(path: str, folder: Path) -> bool:
    """Whether it is a file inside of the folder, wherever links lead."""
    try:
        real = Path(path).resolve(strict=True)
        return real.is_file() and real.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no such file, a zero byte, a loop of links
        return False


def folder_size(folder: Path) -> int:
    """Bytes of all files; some may go meanwhile."""
    size = 0
    for file in (
        os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
    ):
        with suppress(OSError):
            size += os.lstat(file).st_size
    return size


def replay(scope: dict, body: bytes, receive: Callable) -> Callable:
    """A ``receive`` that brings this body as JSON, then what comes after it."""
    headers = MutableHeaders(scope=scope)
    headers["content-length"], headers["content-type"] = str(len(body)), "application/json"
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> dict:
        return events.pop() if events else await receive()

    return replayed
