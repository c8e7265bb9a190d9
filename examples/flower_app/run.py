"""Run this Flower app from a clone with one command and without a network: ``python run.py [--out FOLDER]``.

It calls ``flwr run`` with a SuperLink of its own, on a free port of this machine, which it stops at the end, and
with Flower's home in a temporary folder. Options after ``--`` go to ``flwr run``, for example
``-- --run-config "rounds=5 late-device=-1"``.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEVICES = 4
START_S = 60.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the SuperLink answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the SuperLink did not start")


def main(arguments: list[str]) -> int:
    """Start a SuperLink, run the app, stop the SuperLink; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/flower"), help="folder for model.npz, history.json")
    parser.add_argument("flwr_options", nargs="*", help="options of `flwr run`")
    chosen = parser.parse_args(arguments)
    out, port = chosen.out.resolve(), free_port()
    with tempfile.TemporaryDirectory(prefix="flwr-") as home:
        (Path(home) / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = os.environ | {
            "FLWR_HOME": home,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        command = ["flower-superlink", "--simulation", "--insecure", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
        log = Path(home) / "superlink.log"
        with log.open("wb") as file:
            superlink = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            wait_for(port, superlink)
            resources = f"num-supernodes={DEVICES} client-resources-num-cpus=1 init-args-num-cpus=2"
            run = ["flwr", "run", str(HERE), "here", "--stream", "--federation-config", resources]
            run += ["--run-config", f'devices={DEVICES} out="{out}"', *chosen.flwr_options]
            subprocess.run(run, env=environment, check=True)
        except (subprocess.CalledProcessError, RuntimeError) as error:
            print(f"{error}\n{log.read_text()}", file=sys.stderr)
            return 1
        finally:
            superlink.terminate()
            superlink.wait()
    print(f"saved in {chosen.out}" if (out / "model.npz").exists() else "the run failed: see above")
    return 0 if (out / "model.npz").exists() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
