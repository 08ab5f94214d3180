"""Inside a host: starts and stops the processes that send and count probe packets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_STOP_S = 20


class Flows:
    """One host's probe processes, each by a key of the caller's."""

    def __init__(self) -> None:
        self._workers: dict[str, subprocess.Popen[str]] = {}

    def start(self, key: str, role: str, spec: dict[str, Any]) -> None:
        """Start a `sender` or `receiver` and return when it is ready; OSError if it says something else."""
        source = str(Path(__file__).parents[2])
        program = f"import sys; sys.path.insert(0, {source!r}); from holdfast.lab.inside_probe import main; main()"
        worker = subprocess.Popen(  # noqa: S603 own words
            [sys.executable, "-I", "-S", "-c", program, role, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._workers[key] = worker
        assert worker.stdout is not None  # noqa: S101 started with a pipe
        said = worker.stdout.readline()
        if said != "ready\n":
            raise OSError(f"the probe's {role} did not start: {said}{worker.stdout.read()}")

    def stop(self, key: str) -> dict[str, Any]:
        """Stop one and return what it counted, by flow."""
        worker = self._workers.pop(key)
        try:
            said, _ = worker.communicate("stop\n", _STOP_S)
        except subprocess.TimeoutExpired as error:
            worker.kill()
            raise OSError("the probe did not stop") from error
        if worker.returncode:
            raise OSError(f"the probe broke: {said}")
        counted: dict[str, Any] = json.loads(said)
        return counted
