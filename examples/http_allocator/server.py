"""An allocator over HTTP, for systems that are not written in Python: JSON in, JSON out, several federations.

Run: python examples/http_allocator/server.py --state FOLDER --port 8080     (the requests are in README.md)

Every answer is on disk before it is sent, so that a server that is killed and started again goes on in the round
where it was. It listens on this machine alone unless told otherwise, and asks nobody who he is: put it behind
something that does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import edgealloc
from edgealloc.errors import EdgeallocError, Fault, InputError, printable
from edgealloc.files.disk import read_json, write_json
from edgealloc.files.instance import instance_from_dict
from edgealloc.files.solution import dict_from_solution
from edgealloc.rounds import DeviceState, OnlineAllocator, System

MAX_BODY_MB, MAX_DEVICES, MAX_FEDERATIONS = 16.0, 2000, 100
SLOWEST_CLIENT_S = 30.0  # for a whole request to arrive
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
SOLVING = threading.Lock()  # one solve at a time: this machine has no more to give


class Refused(Exception):
    """A request that is answered with a status other than 200."""

    def __init__(self, status: HTTPStatus, told: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(told)
        self.status, self.faults = status, faults


class Federation:
    """One federation: its system, its allocator, and all that later rounds depend on in one file."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.lock = threading.Lock()
        self.system = System.from_dict(read_json(folder / "system.json"))
        self.allocator = OnlineAllocator(self.system, time_budget_s=None)
        self.allocator.rounds.time_budget_s = limit_s
        self._kept = folder / "memory.json"
        if self._kept.exists():
            self.allocator.resume(read_json(self._kept))
        self.plan: dict[str, Any] | None = self.allocator.memory()["plan"]

    def _keep(self) -> None:
        """Write the memory in place of the last one; it is on disk when this returns."""
        memory = self.allocator.memory()
        try:
            write_json(memory, self._kept)
            folder = os.open(self._kept.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the file's name too
            finally:
                os.close(folder)
        except InputError as error:
            raise OSError(0, str(error)) from None
        self.plan = memory["plan"]

    def next_plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Plan the next round; a request that is repeated, by its ``round_number``, gets the same answer."""
        number = asked.get("round_number", self.allocator.round_number)
        if self.plan is not None and number == self.plan["round_number"]:
            return self.plan
        if number != self.allocator.round_number:
            raise Refused(HTTPStatus.CONFLICT, f"the next round is {self.allocator.round_number}")
        states = states_of(asked["devices"])
        with SOLVING:
            self.allocator.plan(states)
        self._keep()
        return self.plan or {}

    def plan_again(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Plan the present round once more, for devices that are late or gone."""
        states = states_of(asked["devices"])
        with SOLVING:
            self.allocator.replan(states, elapsed_s=asked.get("elapsed_s", 0.0), started=asked.get("started"))
        self._keep()
        return self.plan or {}

    def report(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Learn how long devices took."""
        self.allocator.report(asked["latency_s"], round_number=asked["round_number"])
        self._keep()
        return {"learned": asked["round_number"]}


def states_of(devices: dict[str, Any]) -> dict[str, DeviceState]:
    if len(devices) > MAX_DEVICES:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_DEVICES} devices")
    return {name: DeviceState.from_dict(state, name) for name, state in devices.items()}


class Service:
    """All federations of a folder, each in a folder of its name."""

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.folder, self.limit_s = folder, limit_s
        self.lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        named = sorted(path for path in folder.iterdir() if (path / "system.json").is_file())
        self.known = {path.name: Federation(path, limit_s) for path in named}

    def put(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a federation; once more with the same system changes nothing."""
        system = System.from_dict(asked)
        with self.lock:
            if name in self.known:
                if self.known[name].system.to_dict() != system.to_dict():
                    raise Refused(HTTPStatus.CONFLICT, f"there is a federation {name!r} with another system")
                return {"federation": name}
            if len(self.known) >= MAX_FEDERATIONS:
                raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, f"at most {MAX_FEDERATIONS} federations")
            (self.folder / name).mkdir(exist_ok=True)
            write_json(system.to_dict(), self.folder / name / "system.json")
            self.known[name] = Federation(self.folder / name, self.limit_s)
        return {"federation": name}

    def answer(self, verb: str, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What a request is answered with."""
        parts = path.strip("/").split("/")
        if (verb, parts) == ("GET", ["health"]):
            return {"version": edgealloc.__version__, "federations": sorted(self.known)}
        if (verb, parts) == ("POST", ["solve"]):
            instance = instance_from_dict(asked)
            with SOLVING:
                return dict(dict_from_solution(edgealloc.solve(instance, time_limit=self.limit_s).solution()))
        if parts[0] != "federations" or len(parts) not in (2, 3) or not NAME.fullmatch(parts[1]):
            raise Refused(HTTPStatus.NOT_FOUND, "no such place; federations have names of a-z, 0-9 and -")
        if verb == "PUT" and len(parts) == 2:
            return self.put(parts[1], asked)
        federation = self.known.get(parts[1])
        if federation is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"no federation {parts[1]!r}; PUT its system first")
        rooms: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
            ("POST", "plan"): federation.next_plan,
            ("POST", "replan"): federation.plan_again,
            ("POST", "report"): federation.report,
        }
        with federation.lock:
            if (verb, parts[-1]) == ("GET", "plan") and federation.plan is not None:
                return federation.plan
            if (verb, parts[-1]) not in rooms:
                raise Refused(HTTPStatus.NOT_FOUND, f"nothing at {verb} {path}")
            try:
                return rooms[verb, parts[-1]](asked)
            except OSError as error:  # what is not on disk did not happen
                self.known[parts[1]] = Federation(self.folder / parts[1], self.limit_s)
                raise Refused(
                    HTTPStatus.INSUFFICIENT_STORAGE, f"not kept, so not done: {error.strerror}"
                ) from None


class Handler(BaseHTTPRequestHandler):
    """Reads a request within its limits and writes the answer."""

    service: Service
    timeout = SLOWEST_CLIENT_S
    protocol_version = "HTTP/1.1"

    def _asked(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 15:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a Content-Length")
        if int(length) > MAX_BODY_MB * 1e6:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_MB:g} MB")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("devices", {}), dict | list):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object as README.md has them")
        return asked

    def _serve(self) -> None:
        faults: tuple[Fault, ...] = ()
        status, body = HTTPStatus.OK, dict[str, Any]()
        try:
            asked = {} if self.command == "GET" else self._asked()
            body = self.service.answer(self.command, self.path, asked)
        except Refused as error:
            status, body = error.status, {"error": str(error)}
            self.close_connection = True  # what was not read would be taken for the next request
        except InputError as error:
            status, faults, body = HTTPStatus.UNPROCESSABLE_ENTITY, error.faults, {"error": str(error)}
        except (KeyError, TypeError, AttributeError) as error:
            status, body = HTTPStatus.BAD_REQUEST, {"error": f"a key is missing or of another kind: {error}"}
        except EdgeallocError as error:
            status, body = HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)}
        if faults:
            body["faults"] = [asdict(fault) for fault in faults]
        content = json.dumps(body, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *args: Any) -> None:
        print(printable(format % args), flush=True)


def serve(folder: Path, host: str = "127.0.0.1", port: int = 0, limit_s: float = 10.0) -> ThreadingHTTPServer:
    """A server that is ready; ``serve_forever`` of it answers."""
    handler = type("BoundHandler", (Handler,), {"service": Service(folder, limit_s)})
    return ThreadingHTTPServer((host, port), handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder that holds every federation")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--time-limit", type=float, default=10.0, help="of a plan or solve, in s")
    chosen = parser.parse_args()
    server = serve(chosen.state, chosen.host, chosen.port, chosen.time_limit)
    print(f"listening on port {server.server_address[1]}", flush=True)
    server.serve_forever()
