"""Refuses requests that gradio would let through: too large, or with files that were not uploaded here.

Gradio fetches a file from any address of the web, for any input, where a request names one; it bounds single files of
an upload, but neither their number nor the size of other requests.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from open_musiclm.app.limits import Limits
from open_musiclm.app.uploads import is_upload, remove_oldest

_UPLOAD = "/gradio_api/upload"
_NAMED_CALL = "/call/v2/"
# the last is gradio's older form of the first
_FETCHED = ("/gradio_api/file=http", "/gradio_api/proxy=", "/gradio_api/file/")


class Guard:
    """ASGI middleware around the whole page."""

    def __init__(self, app: ASGIApp, uploads: Path, limits: Limits) -> None:
        self.app, self.uploads, self.limits = app, uploads, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers 403, 400 or 413."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            if scope.get("path", "").lower().startswith(_FETCHED):
                await PlainTextResponse("addresses are not fetched", 403)(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        is_file = scope["path"] == _UPLOAD
        most = self.limits.upload_bytes if is_file else self.limits.request_bytes
        body = await _body(scope, receive, most)
        if body is None:
            answer = PlainTextResponse(f"at most {most:,} bytes are taken", 413)
        elif not is_file and not self._known(body):
            answer = PlainTextResponse("a file is named that was not uploaded here", 400)
        else:
            try:
                await self.app(scope, _again(body, receive), send)
                return
            except TypeError as error:  # gradio's, of an argument that a function does not have
                if _NAMED_CALL not in scope["path"]:
                    raise
                answer = PlainTextResponse(str(error), 400)
            finally:
                if is_file:
                    await asyncio.to_thread(
                        remove_oldest, self.uploads, self.limits.uploads_bytes, self.limits.uploads_files
                    )
        await answer(scope, receive, send)

    def _known(self, body: bytes) -> bool:
        """Whether all files that a JSON body names were uploaded here; other bodies name none."""
        try:
            content = json.loads(body)
        except RecursionError:
            return False
        except ValueError:
            return True
        return all(is_upload(self.uploads, path) for path in _paths(content))


async def _body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The body of a request; None if it is longer than `most`."""
    if int(Headers(scope=scope).get("content-length", "0")) > most:
        return None
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            return None
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives the body once more, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def _paths(content: Any) -> Iterator[Any]:
    """The value of every key "path", at any depth."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("path") is not None:
                yield value["path"]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
