"""Answers GET on port 8080 with a page that Jinja2 renders."""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import jinja2
import markupsafe._speedups  # Without its compiled part MarkupSafe would fall back to Python in silence.

PAGE = jinja2.Environment(autoescape=True).from_string("<p>hello {{ name }} from Python {{ version }}</p>")
VERSION = "{}.{}".format(*sys.version_info)


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        name = unquote(self.path.lstrip("/")) or "world"
        page = PAGE.render(name=name, version=VERSION).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # The first process of a container has no default for it.
ThreadingHTTPServer(("", 8080), Page).serve_forever()
