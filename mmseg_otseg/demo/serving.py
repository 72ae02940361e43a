"""Serves the page without sending any of its data to other sites."""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from mmengine.logging import print_log

MAX_BYTES = "20mb"
MAX_SESSIONS = 32
LOCAL = ["127.0.0.1", "localhost", "[::1]"]
# The browser itself refuses what would come from, or go to, any other machine.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)
FONT = ("system-ui", "sans-serif")
CSS = """
.gradio-container {max-width: 1320px !important; margin: auto}
.step {margin: 0 !important}
.wrong {margin: 0; padding: .5em .8em; border-radius: .4em; background: #fee4e2; color: #912018;
  border: 1px solid #fda29b}
.thumbnails .grid-wrap {height: auto; min-height: 0; max-height: none;
  overflow: hidden}
.thumbnails .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)) !important}
.thumbnails img {object-fit: contain !important}
.upload, .upload .wrap {min-height: 0}
textarea {field-sizing: content; height: auto !important}
.maps {display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .6em}
.maps figure {margin: 0}
.maps img {width: 100%; border-radius: .4em}
.maps figcaption {font-size: .85em; line-height: 1.25; overflow-wrap: anywhere}
.rows h4 {margin: 0 0 .4em}
.rows .row {display: grid; gap: .6em; align-items: center; padding: .12em 0;
  grid-template-columns: 1em minmax(0, 3fr) minmax(0, 2fr) 4em;
  font-size: .92em; line-height: 1.25}
.rows .chip {width: 1em; height: 1em; border-radius: .25em; border: 1px solid #0003}
.rows .track {background: var(--neutral-200); border-radius: .3em; height: .6em; overflow: hidden}
.dark .rows .track {background: var(--neutral-700)}
.rows .bar {display: block; height: 100%}
.rows .number {text-align: right; font-variant-numeric: tabular-nums}
.rows .unseen {margin-left: .5em; padding: 0 .4em; border-radius: .6em; font-size: .75em;
  background: #f59e0b33; border: 1px solid #f59e0b; display: inline-block}
.result img {cursor: crosshair}
"""


class WithPolicy:
    """An ASGI application whose answers all carry the content security policy.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(blocks: gr.Blocks, host: str, port: int | None) -> None:
    """Answer browsers until interrupted.

    Args:
        blocks: The page.
        host: Address to serve on. On a loopback address, only requests to a loopback name are
            answered.
        port: Port; None is the first free one from 7860 on.

    Raises:
        OSError: If the port is taken.
    """
    middleware = [Middleware(WithPolicy)]
    if host in LOCAL:  # against DNS rebinding
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=LOCAL))
    blocks.queue(default_concurrency_limit=2, max_size=32)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        app_kwargs=dict(middleware=middleware, openapi_url=None),
        state_session_capacity=MAX_SESSIONS,
        max_file_size=MAX_BYTES,
        theme=gr.themes.Base(primary_hue="indigo", font=FONT, font_mono="monospace"),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    print_log(f"open {address} in a browser; Ctrl+C ends", "current")
    blocks.block_thread()
