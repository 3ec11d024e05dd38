"""A Ray cluster (https://docs.ray.io) as a place for functions: Ray schedules them, and repeats those of lost workers.

Ray is an extra (``kdtool[ray]``): it is imported only where a user names a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kdtool.errors import Error, UsageError, first_line
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from concurrent.futures import Future

# How long the head of a cluster may take for its first word. Ray itself asks for minutes.
SECONDS_TO_ANSWER = 5.0

# The beginning of a connection of HTTP/2, which gRPC and so Ray speak, with an empty frame of settings; the other side
# answers with a frame of settings (RFC 9113, sections 3.4, 4.1 and 6.5).
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4

# How often Ray asks for the head, once a second.
TRIES = 3

# The folder of the package.
HOME = Path(__file__).parents[2]

_STOPPED = "the workers were stopped"


@dataclass(frozen=True)
class Resources:
    """What a task takes of a machine: cores, and GPUs (None: one, if the cluster has any)."""

    cpus: float = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        for name, count in (("cpus", self.cpus), ("gpus", self.gpus or 0)):
            if not 0 <= count < 10_000 or (count > 1 and count != int(count)):
                raise UsageError(f"--ray-{name}: {count:g} is neither a whole number nor a part of 1")


class Cluster:
    """A cluster to which this process is connected."""

    def __init__(self, resources: Resources) -> None:
        """Give each task these resources; what no machine has is said, as a machine may still join."""
        import ray

        self._ray = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = ([float(node.get(name, 0)) for node in nodes] for name in ("CPU", "GPU"))
        self.cpus = resources.cpus
        self.gpus = (1.0 if any(gpus) else 0.0) if resources.gpus is None else resources.gpus
        # A task that asked for no GPU must not take one that others have.
        hidden = any(gpus) and not self.gpus
        self.environment: dict[str, Any] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if hidden else {}
        share = [count / asked for count, asked in ((sum(cpus), self.cpus), (sum(gpus), self.gpus)) if asked]
        self.at_once = max(1, int(min(share, default=len(nodes))))
        machines = f"{len(nodes)} machines" if len(nodes) > 1 else "1 machine"
        each = f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        say(f"Ray: {machines}, {sum(cpus):g} CPUs, {sum(gpus):g} GPUs; a task takes {each}")
        for name, asked, most in (("cpus", self.cpus, max(cpus)), ("gpus", self.gpus, max(gpus))):
            if asked > most:
                say(f"--ray-{name} {asked:g}: no machine of the cluster has more than {most:g}; waits for one that has")
        self._running: dict[Future[Any], Any] = {}

    def put(self, value: Any) -> Any:
        """Return a reference to a value in the object store, from which any machine can take it (see `taken`)."""
        return self._ray.put(value)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a function of a module, or one that can be pickled, as a task; a lost worker's is run again elsewhere."""
        task = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, runtime_env=self.environment)(function)
        reference = task.remote(*arguments)
        future: Future[Any] = reference.future()
        self._running[future] = reference
        future.add_done_callback(self._forget)
        return future

    def on_each_machine(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what a function returns on each machine of the cluster.

        Raises:
            Error: a machine cannot run it, for example because kdtool is not installed there.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        task = self._ray.remote(num_cpus=0)(function)
        references = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments)
            for node in nodes
        ]
        try:
            return list(self._ray.get(references))
        except self._ray.exceptions.RayError as error:
            raise Error(f"Ray: {why(error)}") from error

    def stop(self) -> None:
        """End all tasks, also those that run."""
        for reference in list(self._running.values()):
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _forget(self, future: Future[Any]) -> None:
        self._running.pop(future, None)


def taken(reference: Any) -> Any:
    """Return the value of a reference that `Cluster.put` made, in a task."""
    import ray

    return ray.get(reference)


def why(error: BaseException) -> str:
    """Return in one line why a task failed: its own error, or what became of its worker."""
    import ray

    if isinstance(error, ray.exceptions.TaskCancelledError):
        return _STOPPED
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
            return f"a machine of the cluster lacks a package ({first_line(cause)}); install the same kdtool on all"
        return f"{type(cause).__name__}: {first_line(cause)}"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its worker was ended because the memory was short; give each task more --ray-cpus, so that fewer run"
    if isinstance(error, ray.exceptions.RayError):
        return f"its worker was lost, and so were those after it ({type(error).__name__})"
    return f"{type(error).__name__}: {first_line(Exception(str(error)))}"


@contextlib.contextmanager
def connected(address: str, resources: Resources) -> Iterator[Cluster]:
    """Connect this process to a cluster while the block runs; its tasks end with it, also if the process is killed.

    ``address`` is ``auto`` (the cluster that RAY_ADDRESS names, or that runs on this machine) or ``HOST:PORT``.

    Raises:
        UsageError: the address has another form, or Ray is not installed.
        Error: no cluster answers there.
    """
    host = _host(address)
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(TRIES))
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray: needs Ray; pip install 'kdtool[ray]'") from error
    if ray.is_initialized():  # by the program that calls kdtool
        yield Cluster(resources)
        return
    if host is not None:
        _greet(address, *host)
    with tempfile.TemporaryFile() as said:
        try:
            # Ray lets its workers import from the current folder of who connects: a stranger may have put a file there.
            with _stderr_in(said), _handler_kept(signal.SIGTERM), contextlib.chdir(HOME):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            said.seek(0)
            raise Error(f"--ray {address}: {_reason(address, error, said.read().decode(errors='replace'))}") from error
    try:
        yield Cluster(resources)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _stderr_in(file: IO[bytes]) -> Iterator[None]:
    """Write what libraries print to stderr, in any language, to a file while the block runs."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def _handler_kept(number: int) -> Iterator[None]:
    """Leave the handler of a signal as it is; Ray sets one of its own, which ends the process with a trace."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, TypeError):  # not the main thread, or a handler that is not of Python
            signal.signal(number, handler)


def _reason(address: str, error: BaseException, said: str) -> str:
    """Return why there is no connection, and what to do; ``said`` is what Ray printed."""
    if "InvalidAuthToken" in said:
        return (
            "the cluster asks for a token; set RAY_AUTH_MODE=token, and copy ~/.ray/auth_token from the machine of its "
            "head"
        )
    if "no authentication token was found" in f"{error} {said}":
        return (
            "RAY_AUTH_MODE=token is set, and there is no token; copy ~/.ray/auth_token from the head's machine, or "
            "make one with ray get-auth-token --generate before ray start"
        )
    if isinstance(error, ConnectionError) and address == "auto" and "RAY_ADDRESS" not in os.environ:
        return "no Ray cluster runs on this machine; start one with ray start --head, or name the address of its head"
    if isinstance(error, ConnectionError):
        return "does not answer as a Ray cluster; ray start --head prints the address of its head"
    return f"cannot be used: {first_line(Exception(str(error)))}"


def _host(address: str) -> tuple[str, int] | None:
    """Return the host and the port of an address; None for ``auto`` without RAY_ADDRESS."""
    named = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if named == "auto":
        return None
    host, colon, port = named.rpartition(":")
    if not colon or "/" in named or not port.isdecimal():
        raise UsageError(
            f"--ray {named}: is neither auto nor HOST:PORT; start kdtool on a machine of the cluster, and name its head"
        )
    return host.strip("[]"), int(port)


def _greet(address: str, host: str, port: int) -> None:
    """Check that something that speaks gRPC answers there; Ray itself would wait for minutes.

    Raises:
        Error: nothing does.
    """
    try:
        with socket.create_connection((host, port), SECONDS_TO_ANSWER) as connection:
            connection.settimeout(SECONDS_TO_ANSWER)
            connection.sendall(GREETING)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        reason = "timed out" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        raise Error(
            f"--ray {address}: does not answer ({reason}); is the cluster running? ray start --head prints its address"
        ) from error
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise Error(f"--ray {address}: what answers there is no Ray cluster; ray start --head prints its address")
