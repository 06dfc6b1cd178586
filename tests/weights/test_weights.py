"""The catalogue of weights, their check, and how they come: from a release, a hub, a folder; hostile ones, too."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cig
from cig import Phi, registry
from cig.cli.main import main
from cig.errors import NotFoundError
from cig.generators import Composing
from cig.io import hub
from cig.methods import Source, Weights, weights_of
from cig.models.clip import load_clip
from cig.models.phi import IM2TEXT, Im2Text
from cig.weights import catalogue, fetch, verify
from fakehub import Hub, serving
from serving import Files, make_certificate, serve

B32, L14, GIGA = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14", "Geonmo/CLIP-Giga-config-fixed"
SDXL, VAE = "stabilityai/stable-diffusion-xl-base-1.0", "madebyollin/sdxl-vae-fp16-fix"
HOME = Path(cig.__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder and a hub's cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def release():
    with serve(Files()) as own:
        yield own


@pytest.fixture
def own_hub(monkeypatch):
    with serving(Hub()) as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        yield own


def run(capsys, *words):
    """(exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return done.value.code or 0, shown.out, shown.err


def one(name):
    (found,) = catalogue.select([name])
    return found


def packed(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def phi_file(features=512, width=512):
    """As a release's `.pt`, with a hidden layer of 8."""
    torch.manual_seed(0)
    return packed({"Phi": Phi(features, 8, width).state_dict()})


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# The catalogue


def test_every_variant_of_every_method_is_in_it():
    known = catalogue.catalogue()
    wanted = {
        f"{family}/{variant}": weights
        for family in registry.names("methods")
        for variant, weights in registry.load("methods", family).VARIANTS.items()
    }
    for name, weights in wanted.items():
        places = {own.location for own in known if name in own.wanted_by}
        phi = {str(Path("models") / weights.phi)} if weights.phi else set()
        assert places == ({weights.clip} if weights.clip else set()) | phi, name
    assert {"searle/b32", "lincir/g14", "oti/l14"} <= set(wanted)


def test_it_is_this():
    kinds = {own.name: own.kind for own in catalogue.catalogue()}
    phis = ["SEARLE_ViT-B32", "SEARLE_ViT-L14", "lincir_large", "phi_best", "phi_best_giga", "pic2word_large"]
    towers = [GIGA, B32, L14, "BAAI/BGE-VL-base", "BAAI/BGE-VL-large", "icons/clip"]
    rest = {"sdxl_checkpoint": "unet", VAE: "vae", SDXL: "scheduler"}
    expected = dict.fromkeys([*phis, "icons/lincir", "icons/pic2word"], "phi") | dict.fromkeys(towers, "tower") | rest
    assert kinds == expected
    assert one("phi_best_giga").wanted_by == ("lincir/g14", "extract", "run")
    assert [own.name for own in catalogue.catalogue() if own.by_hand] == [
        "phi_best",
        "phi_best_giga",
        "sdxl_checkpoint",
    ]


def test_a_new_method_shows_up_by_itself(monkeypatch):
    class Own:
        VARIANTS = {"x": Weights("someone/clip", "own.pt", "https://example.org/own.pt", licence="MIT")}  # noqa: RUF012

    load, names = registry.load, registry.names
    monkeypatch.setattr(registry, "names", lambda folder: [*names(folder), "own"])
    monkeypatch.setattr(registry, "load", lambda folder, name: Own if name == "own" else load(folder, name))
    assert [(own.name, own.licence, own.widths()) for own in catalogue.select(["own"])] == [
        ("own", "MIT", None),
        ("someone/clip", "unknown", None),
    ]


def test_places_of_cig_toml_count(place):
    (place / "cig.toml").write_text('phi_vit = "/weights/a.pt"\n[compose]\nclip2 = "someone/giga"\n')
    wanted = {own.location: own for own in catalogue.select(["extract"])}
    assert set(wanted) == {"/weights/a.pt", "models/phi_best_giga.pt", L14, "someone/giga"}
    assert (wanted["/weights/a.pt"].clip, wanted["/weights/a.pt"].name) == (L14, "a")


def test_a_generator_that_cig_toml_names_brings_its_weights(place):
    (place / "cig.toml").write_text('[generate]\ngenerator = "sdxl/icons"\n')
    assert {(own.kind, own.name) for own in catalogue.select(["run"])} == {
        ("phi", "icons/pic2word"),
        ("phi", "icons/large-pic2word"),
        ("tower", "icons/clip"),
        ("tower", "icons/large"),
        ("unet", "icons/generator"),
        ("vae", "icons/generator/vae"),
        ("scheduler", "icons/generator"),
    }
    assert all(own.shipped and own.local_path() and not own.address for own in catalogue.select(["run"]))
    (place / "cig.toml").write_text('[generate]\ngenerator = "sdxl/icons"\n[compose]\nclip2 = "someone/giga"\n')
    towers = {own.name for own in catalogue.select(["extract"]) if own.kind == "tower"}
    assert towers == {"icons/clip", "someone/giga"}, "a value of one's own goes before the generator's"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("searle", {"SEARLE_ViT-B32", B32}),
        ("searle-xl", {"SEARLE_ViT-L14", L14}),
        ("SEARLE_ViT-L14.pt", {"SEARLE_ViT-L14"}),
        ("lincir/g14", {"phi_best_giga", GIGA}),
        ("generate", {"sdxl_checkpoint", SDXL, VAE}),
        (VAE, {VAE}),
    ],
)
def test_names(name, found):
    assert {own.name for own in catalogue.select([name])} == found


def test_no_such_name():
    with pytest.raises(NotFoundError, match='Did you mean "SEARLE_ViT-B32"'):
        catalogue.select(["SEARLE_ViT-B33"])


def test_list(place, capsys):
    code, out, _ = run(capsys, "models", "list", "--json", "list.json")
    assert (code, "not there: 14 of 17" in out) == (0, True)
    assert "SEARLE_ViT-B32: phi, 512 -> 512, licence: CC BY-NC 4.0, not there" in out
    listed = {own["name"]: own for own in json.loads((place / "list.json").read_text())}
    assert listed[L14]["commit"] == "32bd64288804d66eefd0ccbe215aa642df71cc41"
    assert (listed["SEARLE_ViT-B32"]["sha256"], len(listed["lincir_large"]["sha256"])) == (None, 64)
    assert (listed["icons/clip"]["widths"], listed["icons/lincir"]["widths"]) == ([128, 128], [128, 128])
    assert (listed["sdxl_checkpoint"]["by_hand"], listed["icons/clip"]["shipped"]) == (True, True)


# A safetensors file in the place of a `.pt`


def test_converted_weights_are_found(place):
    safe = place / "models/SEARLE_ViT-B32.safetensors"
    source = Source()
    with pytest.raises(NotFoundError, match=r"\(cig models download SEARLE_ViT-B32\)"):
        source.phi_file(weights_of("searle/b32"))
    with pytest.raises(NotFoundError, match=r"\(cig models download phi_best_giga --from-dir FOLDER\)"):
        source.phi_file(weights_of("lincir/g14"))
    put(safe, b"x")
    assert source.phi_file(weights_of("searle/b32")) == Path("models/SEARLE_ViT-B32.safetensors")
    put(place / "models/phi_best.safetensors", b"x")
    assert Composing().phis == (Path("models/phi_best.safetensors"), Path("models/phi_best_giga.pt"))
    put(place / "models/phi_best.pt", b"x")
    assert Composing().phis[0] == Path("models/phi_best.pt"), "what was asked for is there"


# From a release


def test_a_release_is_converted_noted_and_used(place, release, capsys, world):
    content = phi_file()
    release.content["/weights/SEARLE_ViT-B32.pt"] = content
    words = ["models", "download", "SEARLE_ViT-B32", "--mirror", f"{release.url}/weights/"]
    code, out, err = run(capsys, *words)
    assert (code, "SEARLE_ViT-B32: sound" in out, "512 -> 8 -> 512" in out) == (0, True, True)
    assert f"SEARLE_ViT-B32.pt: 0.0 MB from {release.url}/weights/SEARLE_ViT-B32.pt" in err
    assert sorted(os.listdir("models")) == ["SEARLE_ViT-B32.json", "SEARLE_ViT-B32.safetensors"]
    note = json.loads(Path("models/SEARLE_ViT-B32.json").read_text())
    assert note["sha256"] == hashlib.sha256(content).hexdigest()
    assert (note["file"], note["licence"]) == ("SEARLE_ViT-B32.pt", "CC BY-NC 4.0")
    torch.manual_seed(0)
    expected = Phi(512, 8, 512).state_dict()
    got = load_file("models/SEARLE_ViT-B32.safetensors")
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)
    release.asked.clear()
    assert run(capsys, *words)[0] == 0
    assert release.asked == [], "what is there is not asked for again"


def test_another_kind_of_network(place, release):
    weights = Im2Text(768, 8, 768).state_dict()
    stored = {"state_dict_img2text": {f"module.{name}": own for name, own in weights.items()}}
    release.content["/pic2word_large.pt"] = packed(stored)
    found = fetch.fetch(one("pic2word_large"), [release.url])
    assert (found.state, found.widths) == ("sound", (768, 768))
    assert set(load_file(found.path)) == set(IM2TEXT.names)


class Program:
    def __reduce__(self):
        return os.system, ("touch it-ran",)


def test_the_program_would_run(place):
    pickle.loads(HOSTILE["a program alone"][0])
    assert (place / "it-ran").exists()


HOSTILE = {
    "a program": (packed({"Phi": Program()}), "pickled programs are refused"),
    "a program alone": (pickle.dumps(Program()), "pickled programs are refused"),
    "a page": (b"<html>log in</html>" * 99, "pickled programs are refused"),
    "cut": (phi_file()[:9000], "cannot be read as tensors"),
    "no phi": (packed({"Theta": {}}), "Theta"),
    "other widths": (
        phi_file(40, 32),
        f"width 40 into words of width 32, but the CLIP {B32} has features of width 512",
    ),
    "not finite": (packed({"Phi": {k: v / 0 for k, v in Phi(512, 8, 512).state_dict().items()}}), "not finite"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_phi_is_refused_and_named(place, release, capsys, what):
    content, said = HOSTILE[what]
    release.content["/SEARLE_ViT-B32.pt"] = content
    code, out, err = run(capsys, "models", "download", "SEARLE_ViT-B32", "--mirror", release.url)
    assert (code, "SEARLE_ViT-B32 is broken" in err, said in out) == (1, True, True)
    assert "Traceback" not in err
    assert not (place / "it-ran").exists()
    assert os.listdir("models") == [], "nothing of it is kept"


def test_a_digest_that_is_known_is_held(place, release):
    release.content["/lincir_large.pt"] = content = phi_file(768, 768)
    found = fetch.fetch(one("lincir_large"), [release.url])
    assert found.state == "broken"
    assert weights_of("lincir").sha256 in found.detail
    assert not Path("models/lincir_large.safetensors").exists()
    right = replace(one("lincir_large"), sha256=hashlib.sha256(content).hexdigest())
    assert fetch.fetch(right, [release.url]).state == "sound"


def test_mirrors_are_asked_in_order(place, release, capsys):
    release.content["/second/SEARLE_ViT-B32.pt"] = phi_file()
    first, second = f"{release.url}/first", f"{release.url}/second"
    code, _, err = run(capsys, "models", "download", "SEARLE_ViT-B32", "--mirror", first, "--mirror", second)
    assert (code, f"{first}/SEARLE_ViT-B32.pt: the server answers 404; the next mirror is asked" in err) == (0, True)


def test_what_comes_by_hand_may_come_from_a_mirror(place, release):
    release.content["/phi_best.pt"] = phi_file(768, 768)
    assert fetch.fetch(one("phi_best")).hint.endswith("cig models download phi_best --from-dir FOLDER")
    assert fetch.fetch(one("phi_best"), [release.url]).state == "sound"


def test_a_release_may_not_lead_to_a_private_network(place, release):
    """As its method states it, not as the user does."""
    release.content["/own.pt"] = phi_file()
    weight = replace(one("SEARLE_ViT-B32"), address=f"https://127.0.0.1:{release.url.rpartition(':')[2]}/own.pt")
    assert "not on the public internet" in fetch.fetch(weight).detail
    assert release.asked == []


@pytest.mark.parametrize("stated", [True, False])
def test_a_file_that_is_too_large_is_not_taken(place, release, monkeypatch, stated):
    release.content["/SEARLE_ViT-B32.pt"] = phi_file()
    release.length = stated
    monkeypatch.setattr(fetch, "MOST_PHI", 1000)
    found = fetch.fetch(one("SEARLE_ViT-B32"), [release.url])
    assert found.state == ("broken" if stated else "missing")
    assert not verify.inspect(one("SEARLE_ViT-B32")).path
    assert Path("models").exists() is not stated, "what is known to be too large is not begun"


def test_a_release_whose_size_the_server_does_not_say_comes(place, release):
    release.content["/SEARLE_ViT-B32.pt"] = phi_file()
    release.length = False
    assert fetch.fetch(one("SEARLE_ViT-B32"), [release.url]).state == "sound"


def test_two_processes_do_not_fetch_one_release(place, release, held_elsewhere):
    release.content["/SEARLE_ViT-B32.pt"] = phi_file()
    process = held_elsewhere("file", place / "models/SEARLE_ViT-B32.release")
    assert f"process {process.pid}" in fetch.fetch(one("SEARLE_ViT-B32"), [release.url]).detail


def test_a_release_behind_a_sign_in_says_so(place, release):
    release.moods = ["403"]
    found = fetch.fetch(one("SEARLE_ViT-B32"), [release.url])
    assert (found.state, "accept terms" in found.hint) == ("missing", True)


def test_what_came_in_part_is_incomplete_and_goes_on(place, release, capsys):
    release.content["/SEARLE_ViT-B32.pt"] = content = phi_file()
    release.moods = ["", "short 1000", *["404"] * 9]
    words = ["SEARLE_ViT-B32", "--mirror", release.url]
    run(capsys, "models", "download", *words)
    code, out, _ = run(capsys, "models", "check", "SEARLE_ViT-B32")
    assert (code, "SEARLE_ViT-B32: incomplete" in out, "move" in out) == (1, True, False)
    assert "cig models download SEARLE_ViT-B32" in out
    release.moods = []
    assert run(capsys, "models", "download", *words)[0] == 0
    assert release.bytes_asked()[-1] == "bytes=1000-"
    assert len(content) > 1000


def test_a_model_in_shards_that_lacks_one_is_incomplete(own_hub, world, place):
    """As a break between two files leaves it; of a folder of the user's own, something is broken."""
    folder = put(place / "clip/config.json", (world / "models/clip-small/config.json").read_bytes()).parent
    shutil.copy(world / "models/clip-small/model.safetensors", folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    put(folder / "model.safetensors.index.json", json.dumps(index).encode())
    own_hub.add(L14, hub.repo(L14).commit, folder)
    found = fetch.fetch(one(L14))
    assert (found.state, "model-00002-of-00002.safetensors" in found.detail) == ("incomplete", True)
    copy = verify.inspect(replace(one(L14), location=str(folder)))
    assert (copy.state, "move" in copy.hint) == ("broken", True)


def test_a_hub_download_that_lacks_a_file_is_incomplete_and_goes_on(own_hub, world):
    """As a kill between two files leaves it."""
    own_hub.add(L14, hub.repo(L14).commit, world / "models/clip-small")
    fetch.fetch(one(L14))
    (hub.snapshot(L14) / "model.safetensors").unlink()
    begun = verify.inspect(one(L14))
    assert (begun.state, begun.hint.startswith(f"cig models download {L14}")) == ("incomplete", True)
    assert fetch.fetch(one(L14)).state == "sound"


@pytest.mark.slow
def test_a_kill_in_mid_file_and_a_rerun(place, release, capsys):
    """The rerun asks for the rest alone."""
    release.content["/SEARLE_ViT-B32.pt"] = content = phi_file()
    release.moods = ["", "drip"]
    command = [sys.executable, "-m", "cig", "models", "download", "SEARLE_ViT-B32", "--mirror", release.url]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HOME / "src")})
    part = Path("models/SEARLE_ViT-B32.release.part")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    have = part.stat().st_size
    assert 2 < have < len(content)
    release.asked.clear()
    assert run(capsys, *command[3:])[0] == 0
    assert release.bytes_asked()[-1] == f"bytes={have}-"
    assert verify.inspect(one("SEARLE_ViT-B32")).state == "sound"


# From a hub


def test_a_clip_comes_as_safetensors_at_its_commit(own_hub, world, monkeypatch, place):
    folder = world / "models/clip-small"
    own_hub.add(L14, hub.repo(L14).commit, folder)
    own_hub.repos[L14][1].update({"pytorch_model.bin": b"pickle", "README.md": b"", "x/y.py": b"", "vocab.json": b"{}"})
    found = fetch.fetch(one(L14))
    assert (found.state, found.digest, found.widths) == ("sound", hub.repo(L14).commit, (40, 32))
    assert sorted(own_hub.fetched) == ["config.json", "model.safetensors", "vocab.json"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    clip = load_clip(L14, torch.device("cpu"), torch.float32)
    assert clip.identity["revision"] == hub.repo(L14).commit
    assert torch.equal(
        clip.text.text_projection.weight,
        load_clip(str(folder), torch.device("cpu"), torch.float32).text.text_projection.weight,
    )


def test_a_repository_with_pickles_only_is_refused(own_hub, world, capsys):
    own_hub.add(GIGA, "c" * 40, world / "models/clip-large", rename="pytorch_model.bin")
    code, out, err = run(capsys, "models", "download", GIGA)
    assert (code, "has no safetensors; its weights are pytorch_model.bin, and pickles are refused" in out) == (1, True)
    assert own_hub.fetched == []
    assert f"{GIGA} is broken" in err


@pytest.mark.slow
def test_a_hub_download_that_breaks_off_goes_on(own_hub, world):
    own_hub.add(GIGA, "c" * 40, world / "models/clip-large")
    own_hub.moods["model.safetensors"] = 1000
    fetch.fetch(one(GIGA))
    assert fetch.fetch(one(GIGA)).state == "sound"
    assert own_hub.fetched.count("model.safetensors") == 2


def test_what_the_generator_wants_comes_and_loads_without_a_request(own_hub, world, monkeypatch, capsys):
    """Of SDXL's base, only the scheduler; of the VAE's repository, one file of weights."""
    from cig.generators import sdxl

    own_hub.add(SDXL, hub.repo(SDXL).commit, world / "models/sdxl")
    own_hub.add(VAE, hub.repo(VAE).commit, world / "models/sdxl/vae")
    own_hub.repos[VAE][1]["sdxl_vae.safetensors"] = b"the same once more"
    code, out, err = run(capsys, "models", "download", SDXL, VAE)
    assert (code, out.count(": sound"), "2 files, 0.1 MB from the hub" in err) == (0, 2, True)
    assert sorted(own_hub.fetched) == [
        *("config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "scheduler_config.json")
    ]
    own_hub.asked.clear()
    monkeypatch.setattr("socket.create_connection", lambda *_: pytest.fail("connects"))
    made = sdxl.load(world / "models/sdxl", SDXL, VAE, device="cpu", height=64, width=64, steps=1)
    assert own_hub.asked == []
    assert made.identity["vae"]["revision"] == hub.repo(VAE).commit
    assert made.identity["scheduler"]["revision"] == hub.repo(SDXL).commit


@pytest.mark.parametrize("trouble", ["offline", "away", "failing", "knows nothing"])
def test_a_hub_that_does_not_answer_or_knows_nothing_is_said(own_hub, monkeypatch, capsys, trouble):
    """Nothing came, so the weight is missing, not broken; and it is tried again where that may help."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library's own tries
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", trouble == "offline")
    if trouble == "away":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if trouble == "failing":
        own_hub.down = True
    code, out, err = run(capsys, "models", "download", VAE)
    assert (code, f"{VAE} cannot be had from the hub" in out, "Traceback" in err) == (1, True, False)
    assert (f"{VAE}: missing" in out, f"{VAE} is missing" in err) == (True, True)
    assert ("next: try again" in out, "Dry run" in out) == (trouble != "knows nothing", False)
    assert bool(own_hub.asked) == (trouble in ("failing", "knows nothing"))


@pytest.mark.parametrize("token", ["", "hf_of_someone_who_accepted_nothing"])
def test_a_gated_repository_wants_terms_and_a_token(own_hub, world, monkeypatch, capsys, token):
    monkeypatch.setenv("HF_TOKEN", token)
    own_hub.add(L14, hub.repo(L14).commit, world / "models/clip-small")
    own_hub.gated.add(L14)
    code, out, _ = run(capsys, "models", "download", L14)
    assert (code, f"{L14}: missing" in out, "try again" in out, "Client Error" in out) == (1, True, False, False)
    for words in ("gated", f"{hub.HUB}/{L14}", "HF_TOKEN", f"cig models download {L14}"):
        assert words in out


def test_a_hub_whose_certificate_is_not_trusted_is_not_tried_again(place, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serve(Files(), make_certificate(place)) as files:
        monkeypatch.setenv("HF_ENDPOINT", files.url)
        code, out, _ = run(capsys, "models", "download", VAE)
    assert (code, "SSL_CERT_FILE" in out, "try again" in out) == (1, True, False)


def test_all_weights_of_a_hub_that_does_not_answer_are_no_success(monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    wanted = [one(VAE), one("phi_best")]
    monkeypatch.setattr("cig.weights.catalogue.select", lambda names: wanted)
    code, _, err = run(capsys, "models", "download")
    assert (code, f"{VAE} is missing" in err, "phi_best is missing" in err) == (1, True, False)
    assert "to be fetched by hand: phi_best" in err


def test_a_cache_of_another_commit_is_used_as_it_is(own_hub, world, place):
    """Whoever has the model already, from before it was pinned, may stay offline."""
    own_hub.add(L14, "a" * 40, world / "models/clip-small")
    from huggingface_hub import snapshot_download

    snapshot_download(L14, endpoint=own_hub.url, cache_dir=place / "hub")
    assert (hub.commit_of(L14), hub.snapshot(L14).name) == (None, "a" * 40)
    assert verify.inspect(one(L14)).digest == "a" * 40
    assert (hub.commit_of(B32), hub.commit_of("someone/clip")) == (hub.repo(B32).commit, None)


# A folder that was fetched by hand


def tiny_composers(place, world):
    """The two CLIPs that the tiny UNet reads."""
    clips = [world / "models/clip-small", world / "models/clip-large"]
    (place / "cig.toml").write_text(f'[compose]\nclip = "{clips[0]}"\nclip2 = "{clips[1]}"\n')


def drive(world, folder):
    """As a drive's folder comes down: other names around it, some depth."""
    put(folder / "CIG weights/a/phi_best.pt", phi_file(40, 32))
    put(folder / "CIG weights/b/phi_best_giga.pt", phi_file(1280, 1280))
    for path in (world / "models/sdxl/unet").iterdir():
        put(folder / "CIG weights/checkpoint-20000/unet" / path.name, path.read_bytes())
    put(folder / "notes/config.json", b'{"_class_name": "AutoencoderKL"}')
    put(folder / "notes/readme.txt", b"hello")
    return folder


def test_what_is_the_users_own_is_not_replaced(place, capsys):
    """Broken or of another kind: only what we converted is ours."""
    put(place / "Downloads/phi_best.pt", phi_file(768, 768))
    own = put(place / "models/phi_best.safetensors", b"of the user's own")
    code, out, err = run(capsys, "models", "download", "phi_best", "--from-dir", "Downloads")
    assert (code, own.read_bytes()) == (1, b"of the user's own")
    assert f"move {own.relative_to(place)} away" in out + err
    save_file(Im2Text(768, 8, 768).state_dict(), own)
    assert verify.inspect(one("phi_best")).state == "sound"  # a composing phi may be of either kind


def test_two_unets_that_differ_in_weights_alone_are_not_chosen_from(place, world, capsys):
    for name in ("one", "two"):
        for path in (world / "models/sdxl/unet").iterdir():
            put(place / "Downloads" / name / "unet" / path.name, path.read_bytes())
    weights = place / "Downloads/two/unet/diffusion_pytorch_model.safetensors"
    save_file({key: own + 1 for key, own in load_file(weights).items()}, weights)
    code, out, err = run(capsys, "models", "download", "sdxl_checkpoint", "--from-dir", "Downloads")
    assert code == 1
    assert "several that differ" in out + err
    assert not (place / "models/sdxl_checkpoint/unet").exists()


@pytest.mark.parametrize("link", [True, False])
def test_a_drive_folder_is_adopted(place, world, capsys, link):
    tiny_composers(place, world)
    folder = drive(world, place / "Downloads")
    code, out, _ = run(capsys, "models", "download", "--from-dir", folder, *(["--link"] if link else []))
    assert (code, out.count(": sound")) == (0, 3), out
    unet = Path("models/sdxl_checkpoint/unet/diffusion_pytorch_model.safetensors")
    assert unet.is_symlink() == link
    assert unet.read_bytes() == (world / "models/sdxl/unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert json.loads(Path("models/phi_best.json").read_text())["from"].endswith("CIG weights/a/phi_best.pt")
    code, out, _ = run(capsys, "models", "download", "--from-dir", folder)
    assert (code, out.count("was there already and is kept")) == (0, 3)


def test_a_folder_with_nothing_that_is_wanted(place, capsys):
    put(place / "Downloads/x.pt", b"")
    code, _, err = run(capsys, "models", "download", "--from-dir", "Downloads")
    assert (code, "has none of SEARLE_ViT-B32.pt" in err) == (2, True)


def test_a_hostile_file_in_the_folder(place, capsys):
    put(place / "Downloads/phi_best.pt", HOSTILE["a program"][0])
    put(place / "Downloads/SEARLE_ViT-B32.pt", phi_file())
    code, out, err = run(capsys, "models", "download", "--from-dir", "Downloads")
    assert (code, "phi_best: broken" in out, "SEARLE_ViT-B32: sound" in out) == (1, True, True)
    assert "pickled programs are refused" in err
    assert not (place / "it-ran").exists()


def test_what_is_no_file_in_the_folder(place, capsys):
    """Links to nowhere, pipes, folders of a file's name, a configuration that never ends."""
    folder = place / "Downloads"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
    (folder / "a/phi_best.pt").symlink_to("nowhere")
    (folder / "a/config.json").symlink_to("nowhere")
    os.mkfifo(folder / "b/SEARLE_ViT-B32.pt")
    (folder / "b/config.json").write_bytes(b"[" * 2**21)
    (folder / "c/lincir_large.pt").mkdir()
    code, out, err = run(capsys, "models", "download", "--from-dir", "Downloads")
    assert (code, "phi_best.pt is not there" in out, "SEARLE_ViT-B32.pt is not a file" in out) == (1, True, True)
    assert "Traceback" not in err


def test_two_files_of_one_name_that_differ(place, capsys):
    put(place / "Downloads/a/phi_best.pt", phi_file(768, 768))
    put(place / "Downloads/b/phi_best.pt", phi_file(768, 768) + b"x")
    code, out, _ = run(capsys, "models", "download", "--from-dir", "Downloads")
    assert (code, "it has several that differ" in out) == (1, True)


def test_what_is_named_and_not_in_the_folder_is_told(place, capsys):
    put(place / "Downloads/phi_best.pt", phi_file(768, 768))
    code, _, err = run(capsys, "models", "download", "phi_best", "phi_best_giga", "--from-dir", "Downloads")
    assert (code, "phi_best_giga is missing" in err) == (1, True)
    assert Path("models/phi_best.safetensors").exists()


def test_a_broken_file_of_the_users_is_not_replaced(place, release):
    put(place / "models/SEARLE_ViT-B32.pt", b"mine")
    release.content["/SEARLE_ViT-B32.pt"] = phi_file()
    found = fetch.fetch(one("SEARLE_ViT-B32"), [release.url])
    assert (found.state, "move models/SEARLE_ViT-B32.pt away" in found.hint, release.asked) == ("broken", True, [])


# The check


def test_check_of_what_is_shipped(capsys, place):
    code, out, _ = run(capsys, "models", "check", "--json", "found.json")
    assert (code, out.count(": sound"), "not there: 14" in out) == (0, 3, True)
    found = {own["name"]: own for own in json.loads((place / "found.json").read_text())}
    assert found["icons/clip"]["widths"] == [128, 128]
    assert found["SEARLE_ViT-B32"]["state"] == "missing"


def test_what_is_named_must_be_there(capsys):
    code, out, err = run(capsys, "models", "check", "SEARLE_ViT-B32")
    assert (code, "next: cig models download SEARLE_ViT-B32" in out) == (1, True)
    assert "SEARLE_ViT-B32 is missing" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (phi_file(40, 32), "features of width 512"),
        (phi_file()[:-100], "cannot be read as tensors"),
        (HOSTILE["a program"][0], "pickled programs are refused"),
    ],
    ids=["widths", "truncated", "program"],
)
def test_check_of_a_broken_phi(place, capsys, content, said):
    put(place / "models/SEARLE_ViT-B32.pt", content)
    code, out, _ = run(capsys, "models", "check")
    assert (code, "SEARLE_ViT-B32: broken" in out, said in out, "next: move models" in out) == (1, True, True, True)


def test_check_of_digests(place):
    """A release's known one, and the one noted when it was converted."""
    put(place / "models/lincir_large.pt", phi_file(768, 768))
    assert weights_of("lincir").sha256 in verify.inspect(one("lincir_large")).detail
    os.remove("models/lincir_large.pt")
    put(place / "Downloads/SEARLE_ViT-B32.pt", phi_file())
    main_of = one("SEARLE_ViT-B32")
    from cig.weights.convert import import_checkpoints

    (found,) = import_checkpoints([main_of], place / "Downloads")
    assert (found.state, found.digest) == ("sound", hashlib.sha256(found.path.read_bytes()).hexdigest())
    weights = load_file(found.path)
    save_file({name: own + 1 for name, own in weights.items()}, found.path)
    assert "has changed since it was converted" in verify.inspect(main_of).detail


def test_a_phi_is_checked_against_the_clip_that_is_there(own_hub, world, place):
    """The configuration in the cache says more than the published widths."""
    own_hub.add(B32, hub.repo(B32).commit, world / "models/clip-small")
    fetch.fetch(one(B32))
    put(place / "models/SEARLE_ViT-B32.pt", phi_file(40, 32))
    found = verify.inspect(one("SEARLE_ViT-B32"))
    assert (found.state, "by its configuration" in found.detail) == ("sound", True)


def _damage_tail(path):
    path.write_bytes(path.read_bytes()[:-10])


def _damage_number(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _drop_weight(path):
    weights = load_file(path)
    del weights["text_projection.weight"]
    save_file(weights, path)


def _reshape_weight(path):
    weights = load_file(path)
    weights["text_projection.weight"] = weights["text_projection.weight"][:, :5].contiguous()
    save_file(weights, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_damage_tail, "is not a whole safetensors file"),
        (_damage_number, "is not of the sha256 that the hub says"),
        (_drop_weight, "lacks 1 weights (text_projection.weight)"),
        (_reshape_weight, "has 1 of another shape (text_projection.weight (40, 5), not (40, 32))"),
    ],
)
def test_check_of_a_clip_in_the_cache(own_hub, world, damage, said):
    own_hub.add(L14, hub.repo(L14).commit, world / "models/clip-small")
    fetch.fetch(one(L14))
    damage((hub.snapshot(L14) / "model.safetensors").resolve())
    found = verify.inspect(one(L14))
    assert (found.state, said in found.detail, found.detail) == ("broken", True, found.detail)


def _unet(place, world):
    for path in (world / "models/sdxl/unet").iterdir():
        put(place / "models/sdxl_checkpoint/unet" / path.name, path.read_bytes())
    return place / "models/sdxl_checkpoint/unet"


def test_an_import_of_a_unet_that_was_stopped_goes_on(place, world, capsys):
    """The configuration is copied last."""
    folder = drive(world, place / "drive")
    (_unet(place, world) / "config.json").unlink()
    tiny_composers(place, world)
    begun = verify.inspect(one("sdxl_checkpoint"))
    assert (begun.state, "move" in begun.hint) == ("incomplete", False)
    assert run(capsys, "models", "download", "sdxl_checkpoint", "--from-dir", folder)[0] == 0
    assert verify.inspect(one("sdxl_checkpoint")).state == "sound"


def test_check_of_a_unet(place, world):
    """Its widths are compared with those of the CLIPs that compose."""
    folder = _unet(place, world)
    tiny_composers(place, world)
    found = verify.inspect(one("sdxl_checkpoint"))
    assert (found.state, "reads prompts of width 80, pooled 56" in found.detail) == ("sound", True), found.detail
    (place / "cig.toml").unlink()
    assert "it was trained with other CLIPs" in verify.inspect(one("sdxl_checkpoint")).detail
    _damage_tail(folder / "diffusion_pytorch_model.safetensors")
    assert "is not a whole safetensors file" in verify.inspect(one("sdxl_checkpoint")).detail
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    assert "pickles are not trusted" in verify.inspect(one("sdxl_checkpoint")).detail


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"_class_name": "UNet2DConditionModel", "down_block_types": 3}'])
def test_check_of_a_unet_with_a_broken_configuration(place, world, capsys, config):
    put(_unet(place, world) / "config.json", config)
    code, out, err = run(capsys, "models", "check", "sdxl_checkpoint")
    assert (code, "sdxl_checkpoint: broken" in out, "Traceback" in err) == (1, True, False)


# Licences


def rows(heading):
    """name -> (licence, source) of a table of docs/licences.md."""
    text = (HOME / "docs/licences.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {name: (own[1], own[2]) for own in cells[2:] for name in re.findall(r"`([^`]+)`", own[0])}


def test_the_page_of_licences_says_what_the_catalogue_does():
    told = rows("Weights")
    known = {own.name: own for own in catalogue.catalogue()}
    assert set(told) == set(known)
    for name, (licence, source) in told.items():
        assert licence.startswith(known[name].licence), name
        assert (known[name].shipped and "this package" in source) or _home(known[name]) in source, name


def _home(weight):
    """owner/name of the repository that it comes from, as its address says."""
    return re.search(r"(?:github|huggingface)\.com?/([^/]+/[^/)]+)", weight.address)[1]


def test_the_page_of_licences_names_every_dataset():
    datasets = {name for name in registry.names("benchmarks") if registry.is_builtin("benchmarks", name)} - {"folder"}
    assert set(rows("Datasets")) - {"circus"} == datasets  # labels of others' queries


def test_licences_of_what_pseudo_targets_were_made_with():
    from cig.pipelines._search_benchmark import _with_licences

    made_by = {"models": {"vae": f"{VAE}@0", "unet": "ab"}, "compose": {"clip": f"{L14}@0", "dtype": "float32"}}
    assert _with_licences(made_by)["licences"] == {"clip": "MIT", "vae": "MIT", "unet": "unknown"}
    assert _with_licences({})["licences"] == {}


def test_provenance_states_licences(world, place):
    from cig.benchmarks import Data
    from cig.methods import EMBEDDED, licensed
    from cig.pipelines._search_benchmark import Outputs
    from cig.pipelines.evaluate import evaluate
    from cig.retrieval.requests import Searching
    from cig.runtime import Compute

    evaluation = evaluate(
        Data("cirr/val", world / "CIRR"),
        Compute(device="cpu"),
        Searching("lincir", str(world / "models/clip-small"), world / "models/phi-small.pt"),
        outputs=Outputs(json=place / "scores.json"),
    )
    assert evaluation.report.scores
    stated = json.loads((place / "scores.json").read_text())["provenance"]["models"]
    assert {name: own["licence"] for name, own in stated.items()} == {"clip": "unknown", "phi": "unknown"}
    shipped = {"clip": {"source": str(EMBEDDED / "clip"), "sha256": "0"}, "t": 0.5}
    assert licensed(shipped) == {"clip": {**shipped["clip"], "licence": "Apache-2.0"}, "t": 0.5}
    published = {"clip": {"source": L14, "revision": "0"}, "phi": {"source": "x.pt", "sha256": "0"}}
    named = licensed({**published, "licence": "CC BY-NC 4.0"})
    assert {name: own["licence"] for name, own in named.items()} == {"clip": "MIT", "phi": "CC BY-NC 4.0"}


def test_files_and_folders_that_nothing_names_are_checked(world, tmp_path, capsys):
    models = world / "models"
    paths = [models / "clip-small", models / "sdxl", models / "sdxl/unet", models / "sdxl/vae", models / "phi-small.pt"]
    for path in paths:
        assert run(capsys, "models", "check", str(path))[0] == 0, path
    _, out, _ = run(capsys, "models", "check", str(models / "clip-small"))
    assert "sound" in out
    assert run(capsys, "models", "check", str(tmp_path))[0] == 2
