"""The allocator over HTTP, asked by a client of its own: standard files, limits, and nothing lost in a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema

from edgealloc.files.instance import dict_from_instance
from edgealloc.files.schema import json_schema
from tests.places import ROOT
from tests.rounds.cells import a_system, some_states

SERVER = ROOT / "examples" / "http_allocator" / "server.py"
STATES = {name: state.to_dict() for name, state in some_states(count=3).items()}


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """A server in a process of its own; its port. It is killed, as a machine that loses power kills it."""
    command = [sys.executable, SERVER, "--state", folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rsplit(maxsplit=1)[-1])
        finally:
            process.kill()


def ask(port: int, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    link = HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    link.request(verb, path, content, headers)
    answer = link.getresponse()
    found = answer.status, json.loads(answer.read())
    link.close()
    return found


def test_a_client_plans_rounds_and_a_restart_loses_nothing(tmp_path: Path, make_instance: Any) -> None:
    plans = jsonschema.Draft202012Validator(json_schema("plan"))
    system = a_system().to_dict()
    with running(tmp_path) as port:
        for name in ("office", "harbour"):
            assert ask(port, "PUT", f"/federations/{name}", system) == (200, {"federation": name})
            assert ask(port, "PUT", f"/federations/{name}", system)[0] == 200
        assert ask(port, "PUT", "/federations/office", system | {"latency_s": 20.0})[0] == 409
        status, plan = ask(port, "POST", "/federations/office/plan", {"devices": STATES, "round_number": 0})
        assert status == 200
        plans.validate(plan)
        assert all(own["selected"] for own in plan["devices"].values())
        again = ask(port, "POST", "/federations/office/plan", {"devices": {}, "round_number": 0})
        assert again == (200, plan)
        late = {"devices": {"late": STATES["d0"]}, "elapsed_s": 1.0, "started": ["d1"]}
        status, late_plan = ask(port, "POST", "/federations/office/replan", late)
        assert status == 200
        assert late_plan["round_number"] == 0
        assert late_plan["devices"]["d1"]["mask_seed"] == plan["devices"]["d1"]["mask_seed"]
        assert late_plan["devices"]["d1"]["keep"] == plan["devices"]["d1"]["keep"]
        took = {"round_number": 0, "latency_s": {"d0": 25.0, "d1": None}}
        assert ask(port, "POST", "/federations/office/report", took) == (200, {"learned": 0})
        instance = dict_from_instance(make_instance())
        status, solution = ask(port, "POST", "/solve", instance)
        assert status == 200
        jsonschema.Draft202012Validator(json_schema("solution")).validate(solution)
        assert solution["status"] == "optimal"
    memory = tmp_path / "office" / "memory.json"
    assert {path.name for path in memory.parent.iterdir()} == {"system.json", "memory.json"}
    (tmp_path / "office" / ".edgealloc-0.tmp").write_bytes(b'{"seed"')  # cut off while it was written
    written = memory.stat().st_size
    with running(tmp_path) as port:
        health = ask(port, "GET", "/health")[1]
        assert health["federations"] == ["harbour", "office"]
        assert ask(port, "GET", "/federations/office/plan") == (200, late_plan)
        assert ask(port, "POST", "/federations/office/report", took)[0] == 422  # it was learned already
        status, second = ask(port, "POST", "/federations/office/plan", {"devices": STATES})
        assert status == 200
        assert second["round_number"] == 1
        assert second["devices"]["d0"]["keep"] < plan["devices"]["d0"]["keep"]  # it was late, and has a margin now
        assert ask(port, "POST", "/federations/harbour/plan", {"devices": STATES})[1]["round_number"] == 0

        # ---- what is refused, and how ----
        assert ask(port, "POST", "/federations/office/plan", {"devices": STATES, "round_number": 7})[0] == 409
        bad = {"devices": {"x": STATES["d0"] | {"gain": -1.0, "samples": 0.0}}}
        status, told = ask(port, "POST", "/federations/office/plan", bad)
        assert status == 422
        assert {(fault["where"], fault["field"]) for fault in told["faults"]} == {("x", "gain"), ("x", "samples")}
        assert ask(port, "POST", "/federations/office/plan", b"{")[0] == 400
        assert ask(port, "POST", "/federations/office/plan", b"[" * 100_000)[0] == 400
        assert ask(port, "POST", "/federations/office/plan", {"devices": [1]})[0] == 400
        assert ask(port, "POST", "/federations/office/plan", {})[0] == 400
        crowd = {"devices": {str(i): STATES["d0"] for i in range(2001)}}
        assert ask(port, "POST", "/federations/office/plan", crowd)[0] == 413
        assert ask(port, "POST", "/solve", None, **{"Content-Length": "99000000"})[0] == 413
        for path in ("/federations/..%2Fetc/plan", "/federations/nobody/plan", "/", "/federations/office/nothing"):
            assert ask(port, "POST", path, {"devices": STATES})[0] == 404
        assert not (tmp_path.parent / "etc").exists()
        assert ask(port, "GET", "/federations/office/plan")[1] == second
        assert memory.stat().st_size < 1.5 * written  # it does not grow with the rounds
