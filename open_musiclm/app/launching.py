"""Launches gradio so that it stays on this machine: no share link, no analytics, no files except uploads."""

from collections.abc import Sequence
from pathlib import Path

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from open_musiclm.app.files import files_route
from open_musiclm.app.guard import Guard
from open_musiclm.app.handlers import Handlers
from open_musiclm.app.jobs import JobRunner
from open_musiclm.app.markup import STYLE
from open_musiclm.app.page import build_page

_FONT, _FIXED_FONT = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")


def launch(
    runner: JobRunner, uploads: Path, host: str, port: int, known_hosts: Sequence[str]
) -> tuple[gradio.Blocks, str]:
    """The running page and its address. Requests for other hosts than `known_hosts` are refused, as protection
    against DNS rebinding."""
    page = build_page(Handlers(runner, uploads))
    around = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(known_hosts)),
        Middleware(Guard, uploads=uploads, limits=runner.limits),
    ]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        max_file_size=runner.limits.upload_bytes,
        allowed_paths=[],
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=["api"],
        theme=gradio.themes.Default(font=_FONT, font_mono=_FIXED_FONT),
        css=STYLE,
        app_kwargs={"middleware": around, "routes": [files_route(runner.history)]},
    )
    return page, address
