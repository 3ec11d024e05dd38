"""Networks from the Hub: its cache as huggingface_hub lays it out, a server on loopback, and folders."""

import hashlib
import http.server
import json
import pickle
import shutil
import socket
import threading
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import kdtool
from kdtool import Error, UsageError
from kdtool.models.architecture import Architecture, build
from kdtool.models.sources import create_like
from kdtool_teachers.hub import HuggingFace

COMMIT = "1" * 40
LABELS = ["cat", "dog", "eel"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder that timm itself wrote, as ``timm.push_to_hf_hub`` uploads it, and the network in it."""
    from timm.models._hub import save_for_hf

    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=3, act_layer="silu").eval()
    folder = tmp_path_factory.mktemp("published") / "silu"
    about = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 32, 32), "crop_pct": 0.9}
    config = {"label_names": LABELS, "pretrained_cfg": about}
    save_for_hf(network, folder, model_config=config, model_args={"act_layer": "silu"}, safe_serialization=True)
    return folder, network


def offline(monkeypatch, cache):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def cached(published, tmp_path, monkeypatch):
    """huggingface_hub's cache with the repository anna/silu, and no connection."""
    offline(monkeypatch, tmp_path / "cache")
    repository = tmp_path / "cache" / "models--anna--silu"
    shutil.copytree(published[0], repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.chdir(tmp_path)
    return repository / "snapshots" / COMMIT


def outputs(module, images):
    with torch.no_grad():
        return module(images)


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_a_cached_network_comes_with_its_weights_its_classes_and_its_normalisation(cached, published):
    checkpoint = kdtool.teacher("hf:anna/silu")
    assert torch.equal(outputs(checkpoint.module, IMAGES), outputs(published[1], IMAGES))
    assert checkpoint.path.name == "silu.pt"
    assert checkpoint.classes == tuple(LABELS)
    assert checkpoint.architecture.options["image_size"] == 32
    assert (checkpoint.transform.mean, checkpoint.transform.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_its_checkpoint_is_read_where_the_hub_and_the_cache_are_missing(cached, published, monkeypatch):
    kdtool.teacher("hf:anna/silu", output="net.pt")
    shutil.rmtree(cached.parents[2])
    again = kdtool.load("net.pt")
    assert torch.equal(outputs(again.module, IMAGES), outputs(published[1], IMAGES))
    assert any(isinstance(part, torch.nn.SiLU) for part in again.module.modules())
    # What a second export writes is the same for timm.
    kdtool.export("net.pt", "hub-folder", output="again")
    config = json.loads((cached.parents[3] / "again" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    module = timm.create_model("local-dir:again", pretrained=True).eval()
    assert torch.equal(outputs(module, IMAGES), outputs(published[1], IMAGES))


def test_a_student_has_the_structure_alone(cached, published):
    first = create_like("hf:anna/silu", kdtool.teacher("hf:anna/silu").network, seed=1).module
    second = create_like("hf:anna/silu", kdtool.load("silu.pt").network, seed=1).module
    assert not torch.equal(first.fc.weight, published[1].fc.weight)
    assert torch.equal(first.fc.weight, second.fc.weight)


def test_timm_adapts_the_weights_to_other_classes(cached, published):
    network = kdtool.teacher("hf:anna/silu", classes=5)
    assert network.module.fc.weight.shape[0] == 5
    assert torch.equal(network.module.layer1[0].conv1.weight, published[1].layer1[0].conv1.weight)
    assert network.classes == tuple("01234")


def test_a_folder_is_recorded_without_its_path(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = kdtool.teacher(f"hf:{published[0]}")
    assert checkpoint.architecture.name == "silu"
    assert str(published[0]) not in json.dumps(checkpoint.architecture.as_data())
    assert torch.equal(outputs(kdtool.load("silu.pt").module, IMAGES), outputs(published[1], IMAGES))


class Hub(http.server.BaseHTTPRequestHandler):
    """Answer as the Hub does: redirects are left out, a commit and an etag are in the headers."""

    folder = None
    asked: list[str] = []  # noqa: RUF012

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(f"{self.command} {self.path}")
        _, user, name, _, _revision, file = [*self.path.split("/", 5), ""][:6]
        path = self.folder / file
        if (user, name) != ("anna", "silu") or not path.is_file():
            self.send_response(404)
            missing = "RepoNotFound" if (user, name) != ("anna", "silu") else "EntryNotFound"
            self.send_header("X-Error-Code", missing)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def served(published, tmp_path, monkeypatch):
    """A server on loopback with the repository anna/silu, and an empty cache."""
    folder = tmp_path / "served"
    shutil.copytree(published[0], folder)
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    yield folder, handler
    server.shutdown()
    server.server_close()


def test_a_network_is_downloaded(served, published):
    folder, handler = served
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    checkpoint = kdtool.teacher("hf:anna/silu")
    assert torch.equal(outputs(checkpoint.module, IMAGES), outputs(published[1], IMAGES))
    assert {line.rpartition("/")[2] for line in handler.asked} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("hf:anna/other", None, "hf:anna/other: the Hub has no such network, or it is private: hf auth login"),
        ("hf:anna/silu", "config.json", "hf:anna/silu: has no config.json, which describes a network of timm"),
        ("hf:anna/silu", "model.safetensors", "has no model.safetensors, and kdtool reads no pickle of a stranger"),
    ],
)
def test_what_the_hub_does_not_have(served, name, file, message):
    if file:
        (served[0] / file).unlink()
        (served[0] / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(Error, match=message) as caught:
        kdtool.teacher(name)
    assert "\n" not in str(caught.value)
    assert not any("pytorch_model" in line for line in served[1].asked)


def test_without_a_network_it_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as closed:  # a port of an address that exists, where nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(
            Error, match=r"hf:anna/silu: config.json is not in the cache, and the Hub cannot be reached"
        ):
            HuggingFace().defaults("anna/silu")
    assert time.monotonic() - started < 5
    assert constants.HF_HUB_OFFLINE is False
    assert list(tmp_path.glob("*.pt")) == []


def test_an_edited_network_is_a_checkpoint_which_is_said(tmp_path, monkeypatch, teacher_path):
    monkeypatch.chdir(tmp_path)
    kdtool.export(teacher_path, "hub-folder", output="mine")
    with pytest.raises(Error, match="use its folder in place of a checkpoint: kdtool inspect mine"):
        kdtool.teacher("hf:./mine")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet18", UsageError, "is written as hf:USER/NAME for the Hub, or hf:./FOLDER"),
        ("./none", UsageError, "there is no such folder"),
        ("anna/silu/deep", UsageError, "is written as hf:USER/NAME"),
    ],
)
def test_a_name_in_another_form(name, error, message):
    with pytest.raises(error, match=message):
        HuggingFace().defaults(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "test_resnot"}, "timm .* has no network 'test_resnot'; did you mean test_resnet"),
        ({"architecture": "../evil"}, "has no network '../evil'"),
        ({"architecture": None}, "has no network 'None'"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "sets checkpoint_path, which no network may"),
        ({"model_args": {"pretrained_cfg": {"file": "x.bin"}}}, "sets pretrained_cfg, which no network may"),
        ({"model_args": {"features_only": True}}, "sets features_only, which no network may"),
        ({"model_args": {"act_layer": {"a": 1}}}, "its description is damaged: arguments"),
        ({"num_classes": "many"}, "its description is damaged: classes"),
        ({"pretrained_cfg": {"input_size": 5}}, "its config.json is (damaged|no description of a network of timm)"),
        ({"pretrained_cfg": []}, "its config.json is no description of a network of timm"),
    ],
)
def test_a_description_that_no_network_has(published, tmp_path, change, message):
    config = json.loads((published[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises((Error, UsageError), match=message) as caught:
        HuggingFace().defaults(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"architectures": ["BertModel"]}', "[" * 100_000])
def test_a_config_of_something_else(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((Error, UsageError), match=r"its config.json is no description of a network of timm"):
        HuggingFace().defaults(str(tmp_path))


@pytest.mark.parametrize("weights", [pickle.dumps({"a": 1}), b"", b"{"])
def test_weights_that_are_no_safetensors(published, tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published[0], tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(weights)
    with pytest.raises(Error, match="hf:./bad: cannot be built for 3 classes"):
        kdtool.teacher("hf:./bad")


def test_weights_of_another_network(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published[0], tmp_path / "bad")
    save_file({"a": torch.ones(1)}, tmp_path / "bad" / "model.safetensors")
    with pytest.raises(Error, match="hf:./bad: cannot be built"):
        kdtool.teacher("hf:./bad")


@pytest.mark.parametrize("described", ["", "{", "{}", "[" * 100_000])
def test_a_file_asks_for_nothing_on_the_hub(monkeypatch, described):
    monkeypatch.setattr("kdtool_teachers.hub.file_of", lambda *names: pytest.fail("a file was asked for"))
    options = {"classes": 3, "in_channels": 3, "image_size": 32, "stem": "default", "described": described}
    with pytest.raises(Error, match="description is (missing|damaged)"):
        build(Architecture("hf", "evil/net", options), {"fc.weight": torch.ones(3, 1)})


def test_the_outputs_of_the_weights_keep_their_order_where_the_data_has_another(tmp_path, monkeypatch):
    from timm.models._hub import save_for_hf

    monkeypatch.chdir(tmp_path)
    labels = list("9876543210")
    network = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    about = {"mean": (0.5,), "std": (0.5,), "input_size": (1, 8, 8)}
    config = {"label_names": labels, "pretrained_cfg": about}
    save_for_hf(network, tmp_path / "net", model_config=config, safe_serialization=True)
    checkpoint = kdtool.teacher("hf:./net", data="digits", subset=0.2, epochs=0)
    assert checkpoint.classes == tuple(labels)
    assert torch.equal(checkpoint.module.fc.weight, network.fc.weight)
