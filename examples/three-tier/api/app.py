"""Counts visits: POST /api/visits is one more, GET /api/visits says how many there were."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

# Kubernetes sets the variable to the address of the Service data.
DATA = redis.Redis(os.environ["DATA_SERVICE_HOST"], decode_responses=True)


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api/health":
            self.answer(200, {})
        else:
            self.count(lambda: int(DATA.get("visits") or 0))

    def do_POST(self):
        self.count(lambda: DATA.incr("visits"))

    def count(self, visits):
        if self.path != "/api/visits":
            return self.answer(404, {"error": "there is /api/visits"})
        try:
            self.answer(200, {"visits": visits()})
        except redis.RedisError as error:
            self.answer(503, {"error": str(error)})

    def answer(self, status, content):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # The first process of a container has no default for it.
ThreadingHTTPServer(("", 8080), Api).serve_forever()
