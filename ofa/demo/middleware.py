"""What the page of ``ofa demo`` lets in: ASGI middleware in front of Gradio.

Gradio's server can do more than the page needs: fetch addresses for a client, pass requests on to
other servers, take any path that a client names. Here only what the page asks for is let in:

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
import secrets
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOCAL = ("localhost", "127.0.0.1", "::1")
WILDCARDS = ("", "0.0.0.0", "::")
API = "/gradio_api/"
PAGE_ROUTES = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/assets/*",
    "/static/*",
    "/svelte/*",
)
READ_ROUTES = (
    "info",
    "startup-events",
    "app_id",
    "user",
    "token",
    "theme.css",
    "queue/data",
    "queue/status",
    "upload_progress",
    "heartbeat/*",
    "file=*",
)
JSON_ROUTES = ("queue/join", "run/*", "cancel", "reset")
UPLOAD = "upload"
FILE = "file="
VISITOR = "ofa_visitor"  # the cookie
LARGEST_JSON = 1 << 20
LARGEST_UPLOAD = 64 << 20  # bytes of a request
ROOM = 1 << 30  # bytes of all uploads
FILE_KEYS = ("size", "orig_name", "mime_type")
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "object-src 'none'; form-action 'self'; base-uri 'self'; frame-ancestors 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]
FOREIGN_FILE = (
    "This file is not an upload of yours. Upload an image, or choose one of the examples."
)


class Refusal(Exception):
    """Args: status: of HTTP. message: for the person at the other end."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class Gate:
    """Middleware.

    Args:
        app: what answers the requests. folder: with the uploads and the examples.
        host: the address that the page is bound to.
        names: further host names under which it is reached.
    Attributes: owners: real path of an upload -> who uploaded it; equal uploads have one path.
    """

    def __init__(self, app: Callable, folder: Path, host: str, names: Collection[str] = ()):
        self.app, self.folder = app, folder
        self.any_address = host in WILDCARDS
        # bytes of the uploads under way, which lie elsewhere until they are complete
        self.arriving = 0
        self.owners: dict[Path, set[str]] = {}
        own = socket.gethostname() if self.any_address else host
        self.hosts = {name.lower() for name in (*LOCAL, own, *names)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})  # the page uses none
        visitor = visitor_of(scope)
        try:
            self.check_sender(scope)
            kind = self.kind_of_route(scope, visitor)
            coming = (kind == "upload" and length_of(scope)) or 0
            if kind == "json":
                body = self.checked_body(await read_body(receive), visitor)
                scope, receive = with_length(scope, len(body)), replay(body, receive)
        except Refusal as refusal:
            return await respond(send, refusal)

        headers = HEADERS if visitor or scope["path"] != "/" else [*HEADERS, new_visitor()]
        uploaded = bytearray()

        async def send_with_headers(event: dict) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event.get("headers", []), *headers]}
            elif kind == "upload" and event["type"] == "http.response.body":
                uploaded.extend(event.get("body", b""))
                if not event.get("more_body"):
                    self.remember(bytes(uploaded), visitor)
            await send(event)

        self.arriving += coming
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.arriving -= coming

    # --- who asks -------------------------------------------------------------------------------

    def check_sender(self, scope: dict) -> None:
        """Raises: Refusal if the host is not this page's, or another page asks."""
        found = values(scope, "host")
        name = host_name(found[0]) if len(found) == 1 else None
        if name is None or not self.is_own(name):
            raise Refusal(
                403,
                f"This page is not served under the name {name or 'that was given'}; "
                "start ofa demo with --allow-host NAME.",
            )
        # a link on another page may lead here
        opens = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
        senders = values(scope, "origin") or ([] if opens else values(scope, "referer"))
        foreign = [sender for sender in senders if place_of(sender) != found[0].lower()]
        sites = (
            []
            if opens
            else [
                site
                for site in values(scope, "sec-fetch-site")
                if site not in ("same-origin", "none")
            ]
        )
        if foreign or sites:
            raise Refusal(403, "Another page asked for this; open the page of ofa demo itself.")

    def is_own(self, name: str) -> bool:
        """An address cannot be made to point elsewhere, a name can."""
        return name in self.hosts or (self.any_address and is_address(name))

    # --- what is asked for ----------------------------------------------------------------------

    def kind_of_route(self, scope: dict, visitor: str) -> str:
        """``json``, ``upload`` or ``read``.

        Raises: Refusal for what is not the page's, or too large.
        """
        path, method = scope["path"], scope["method"]
        route = path.removeprefix(API)
        if method in ("GET", "HEAD"):
            if (
                route.startswith(FILE)
                and route != path
                and not self.may_open(route.removeprefix(FILE), visitor)
            ):
                raise Refusal(404, "There is no such file.")
            if matches(path, PAGE_ROUTES) or (route != path and matches(route, READ_ROUTES)):
                return "read"
        if method == "POST" and route != path and matches(route, (*JSON_ROUTES, UPLOAD)):
            upload = route == UPLOAD
            size, most = length_of(scope), LARGEST_UPLOAD if upload else LARGEST_JSON
            if size is None:
                raise Refusal(411, "The request does not tell its length.")
            if size > most:
                raise Refusal(413, f"This is too large: {most >> 20} MB are the most.")
            if upload and size + self.arriving + folder_size(self.folder) > ROOM:
                raise Refusal(413, "There is no room for further uploads now. Try again later.")
            return "upload" if upload else "json"
        raise Refusal(404, "The page of ofa demo has no such address.")

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
        """JSON anew, as it is understood here.

        Raises: Refusal if it is none, or names a file that the visitor may not open.
        """
        try:
            return json.dumps(self.checked(json.loads(body), visitor)).encode()
        except (ValueError, RecursionError):
            raise Refusal(400, "The request is not understood.") from None

    def checked(self, value: Any, visitor: str) -> Any:
        """JSON whose files the visitor may open, without addresses to fetch them from.

        Raises: Refusal for another file.
        """
        if isinstance(value, list):
            return [self.checked(one, visitor) for one in value]
        if not isinstance(value, dict):
            return value
        path = value.get("path")
        if path is None:
            return {key: self.checked(one, visitor) for key, one in value.items() if key != "url"}
        if not self.may_open(path, visitor):
            raise Refusal(403, FOREIGN_FILE)
        about = {key: value[key] for key in FILE_KEYS if isinstance(value.get(key), (str, int))}
        return {"path": str(Path(path).resolve()), **about, "meta": {"_type": "gradio.FileData"}}


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
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


# --- HTTP -----------------------------------------------------------------------------------------


def values(scope: dict, name: str) -> list[str]:
    """Of a header, which may come several times."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def visitor_of(scope: dict) -> str:
    """What the cookie says; empty without one."""
    with suppress(CookieError):
        cookie = SimpleCookie("; ".join(values(scope, "cookie"))).get(VISITOR)
        return cookie.value if cookie else ""
    return ""


def new_visitor() -> tuple[bytes, bytes]:
    """The header that sets a cookie; scripts and other pages do not get it."""
    cookie = f"{VISITOR}={secrets.token_urlsafe(16)}; Path=/; HttpOnly; SameSite=Strict"
    return b"set-cookie", cookie.encode()


def length_of(scope: dict) -> int | None:
    found = values(scope, "content-length")
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else None


def with_length(scope: dict, length: int) -> dict:
    """The request with another length, as JSON."""
    kept = [
        header
        for header in scope["headers"]
        if header[0] not in (b"content-length", b"content-type")
    ]
    return {
        **scope,
        "headers": [
            *kept,
            (b"content-length", str(length).encode()),
            (b"content-type", b"application/json"),
        ],
    }


def host_name(value: str) -> str | None:
    """``[::1]:7860`` -> ``::1``"""
    try:
        return urlsplit(f"//{value}").hostname
    except ValueError:
        return None


def place_of(url: str) -> str | None:
    """``http://localhost:7860/a`` -> ``localhost:7860``"""
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:
        return None


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def matches(path: str, routes: Collection[str]) -> bool:
    """Args: routes: paths; those with a star at the end stand for all that begin so."""
    return any(
        path.startswith(route[:-1]) if route.endswith("*") else path == route for route in routes
    )


async def read_body(receive: Callable) -> bytes:
    """Of at most the length that was told, which the server sees to."""
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise Refusal(400, "The request ended early.")
        body, more = body + event.get("body", b""), event.get("more_body", False)
        if len(body) > LARGEST_JSON:
            raise Refusal(413, "The request is longer than it told.")
    return body


def replay(body: bytes, receive: Callable) -> Callable:
    """A ``receive`` that brings this body, then what comes after it."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> dict:
        return events.pop() if events else await receive()

    return replayed


async def respond(send: Callable, refusal: Refusal) -> None:
    body = json.dumps({"detail": refusal.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
