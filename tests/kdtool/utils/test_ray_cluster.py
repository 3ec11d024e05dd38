import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import kdtool
from kdtool.errors import Error, UsageError
from kdtool.utils import ray_cluster
from kdtool.utils.ray_cluster import Resources, connected, why

ray = pytest.importorskip("ray")


@pytest.fixture
def server():
    """Start servers that answer every connection with the same bytes; return their addresses."""
    listeners = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(100)
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def connect(address):
    with connected(address, Resources()):
        raise AssertionError("there is no cluster")


def test_an_address_that_refuses_or_is_something_else(server):
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(Error, match=rf"--ray 127.0.0.1:{port}: does not answer \(Connection refused\); .* ray start"):
        connect(f"127.0.0.1:{port}")
    with pytest.raises(Error, match="what answers there is no Ray cluster"):
        connect(server(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(Error, match="what answers there is no Ray cluster"):
        connect(server(b""))


def test_an_address_that_is_silent(monkeypatch):
    monkeypatch.setattr(ray_cluster, "SECONDS_TO_ANSWER", 0.2)
    started = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Error, match=r"does not answer \(timed out\)") as raised,
    ):
        connect(f"127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 3
    assert raised.value.exit_code == 1


def test_the_first_answer_of_grpc_is_recognised(server):
    # The frame of settings that gRPC sends first: length 0, type 4, no flags, stream 0.
    address = server(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    host, _, port = address.rpartition(":")
    ray_cluster._greet(address, host, int(port))


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265", "head:x", "head:²", ""])
def test_other_forms_of_an_address_are_refused(address):
    with pytest.raises(UsageError, match="is neither auto nor HOST:PORT"):
        connect(address)


def test_the_address_of_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_cluster._host("auto") == ("10.0.0.1", 6379)
    monkeypatch.delenv("RAY_ADDRESS")
    assert ray_cluster._host("auto") is None
    assert ray_cluster._host("[::1]:6379") == ("::1", 6379)


def test_what_ray_says_becomes_one_line(monkeypatch):
    def refuse(*_, **__):
        import os

        os.write(2, b"Unauthenticated: RPC error: InvalidAuthToken\n")
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Error, match="the cluster asks for a token; set RAY_AUTH_MODE=token"):
        connect("auto")
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no")))
    with pytest.raises(Error, match=r"--ray auto: no Ray cluster runs on this machine; .* ray start --head"):
        connect("auto")
    missing = "Token authentication is enabled but no authentication token was found. Ensure that\nthe"
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(missing)))
    with pytest.raises(
        Error, match="RAY_AUTH_MODE=token is set, and there is no token; .* ray get-auth-token --generate"
    ):
        connect("auto")
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("Version mismatch:\n2.1")))
    with pytest.raises(Error, match="cannot be used: Version mismatch:"):
        connect("auto")


def test_workers_import_nothing_from_the_current_folder(monkeypatch, tmp_path):
    """Ray puts the current folder of who connects on the path of its workers."""
    connected_in = []

    def init(*_, **__):
        connected_in.append(os.getcwd())
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error):
        connect("auto")
    assert connected_in == [str(Path(kdtool.__file__).parents[1])]
    assert Path.cwd() == tmp_path


def test_signals_end_the_program_as_before(monkeypatch):
    """Ray sets a handler of its own when it connects."""

    def init(*_, **__):
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Error):
        connect("auto")
    assert signal.getsignal(signal.SIGTERM) is before


def test_why_a_task_failed():
    errors = ray.exceptions
    lost = why(errors.WorkerCrashedError())
    assert lost == "its worker was lost, and so were those after it (WorkerCrashedError)"
    assert "memory was short" in why(errors.OutOfMemoryError("killed"))
    failed = errors.RayTaskError("run", "Traceback", ValueError("odd\nnumber"))
    assert why(failed) == "ValueError: odd"
    missing = errors.RayTaskError("run", "Traceback", ModuleNotFoundError("No module named 'kdtool'"))
    assert "install the same kdtool on all" in why(missing)


@pytest.mark.parametrize("cpus", [-1, 1.5, float("nan"), 1e9])
def test_cores_that_ray_cannot_count(cpus):
    with pytest.raises(UsageError, match="--ray-cpus"):
        Resources(cpus=cpus)
    Resources(cpus=0.5, gpus=0.25)
    Resources(cpus=4, gpus=2)


def _environment():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"), os.getpid()


@pytest.mark.slow
def test_each_task_has_its_gpus_and_its_threads(monkeypatch, capsys):
    """The GPUs are stand-ins: Ray counts them, and nobody uses them."""
    from ray.cluster_utils import Cluster as Machines

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    node = {"num_cpus": 4, "num_gpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
    machines = Machines(initialize_head=True, head_node_args=node)
    try:
        with connected(machines.address, Resources(cpus=2)) as cluster:
            assert (cluster.gpus, cluster.at_once) == (1, 2)
            seen = [cluster.submit(_environment) for _ in range(2)]
            assert {future.result()[0] for future in seen} <= {"0", "1"}
            assert {future.result()[1] for future in seen} == {"2"}
        with connected(machines.address, Resources(cpus=1, gpus=0)) as cluster:
            assert cluster.at_once == 4
            assert cluster.submit(_environment).result()[:2] == ("", "1")
        with connected(machines.address, Resources(gpus=3)) as cluster:
            assert "--ray-gpus 3: no machine of the cluster has more than 2; waits for one" in capsys.readouterr().err
            waiting = cluster.submit(_environment)
            cluster.stop()
            assert why(waiting.exception()) == "the workers were stopped"
    finally:
        machines.shutdown()
