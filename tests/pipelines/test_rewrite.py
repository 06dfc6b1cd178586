"""Target descriptions: from models on this machine and from a service; resumed, refused, bounded."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image

import cig
import tiny
from calls import run
from cig.errors import InputError, UsageError
from cig.io import chat_service
from cig.io.chat_service import ChatService
from cig.models.captioner import load_captioner
from cig.pipelines.rewrite import PROMPT, tidy

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(1)
    tiny.make_captioner(folder)
    return folder


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A GPT-2 of random weights over the captions' words."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("speaker")
    words = len(tiny.make_word_tokenizer(folder))
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=words, n_positions=400, n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def service():
    """A chat service on this machine: `answers` are (status, body) in turn, the last one for all further requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append((self.path, self.headers.get("Authorization"), body))
            status, data = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.answers = [], [(200, said("A red dog."))]
    server.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def said(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def rewrite(capsys, world, captioner, *words):
    return run(capsys, "rewrite", "cirr/val", "--dataset-path", world, "--captioner", captioner, *words)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_texts_of_a_service_are_written_resumed_and_searched_by(
    capsys, world, captioner, tmp_path, service, monkeypatch
):
    monkeypatch.setenv(chat_service.KEY, "secret-key")
    out = tmp_path / "texts.jsonl"
    flags = ["--llm", service.address, "--llm-model", "toy", "--out", out]
    code, shown, err = rewrite(capsys, world, captioner, *flags)
    assert code == 0, err
    first, *lines = lines_of(out)
    part = cig.load_benchmark("cirr/val", root=world)
    assert [line["id"] for line in lines] == [query.id for query in part.queries]
    assert first["settings"]["prompt"] == PROMPT
    assert first["settings"]["llm"] == {"address": service.address, "model": "toy"}
    describe = load_captioner(str(captioner), CPU, FLOAT)
    for query, line, (path, key, body) in zip(part.queries, lines, service.requests, strict=True):
        assert line["caption"] == describe([Image.open(part.images[query.reference])])[0]
        assert line["texts"] == ["A red dog."]
        expected = PROMPT.format(caption=line["caption"], change=query.captions[0])
        assert body["messages"] == [{"role": "user", "content": expected}]
        assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret-key", "toy")
    assert "secret-key" not in out.read_text() + shown + err
    content = out.read_text()
    assert rewrite(capsys, world, captioner, *flags)[0] == 0
    assert out.read_text() == content
    assert len(service.requests) == len(lines)
    out.write_text(content[:-30])  # a kill within the last line
    assert rewrite(capsys, world, captioner, *flags)[0] == 0
    assert len(service.requests) == len(lines) + 1
    code, _, err = rewrite(capsys, world, captioner, *flags, "--prompt", "{caption} but {change}")
    assert code == 2
    assert "prompt" in err
    assert rewrite(capsys, world, captioner, *flags, "--prompt", "{caption} but {change}", "--overwrite")[0] == 0
    line = ["--method", "texts", "--clip", world / "models/clip-small", "--method-option", f"texts={out}"]
    assert run(capsys, "evaluate", "cirr/val", "--dataset-path", world, *line)[0] == 0


def test_texts_of_a_model_are_greedy(capsys, world, captioner, speaker, tmp_path):
    from transformers import AutoTokenizer, GPT2LMHeadModel

    out, asks = tmp_path / "texts.jsonl", "{caption} but {change}"
    code, _, err = rewrite(capsys, world, captioner, "--llm", speaker, "--out", out, "--prompt", asks)
    assert code in (0, 1), err
    model, tokenizer = GPT2LMHeadModel.from_pretrained(speaker).eval(), AutoTokenizer.from_pretrained(speaker)
    part = cig.load_benchmark("cirr/val", root=world)
    lines = {line["id"]: line for line in lines_of(out)[1:]}
    assert lines, err
    query = next(query for query in part.queries if query.id in lines)
    prompt = asks.format(caption=lines[query.id]["caption"], change=query.captions[0])
    ids = tokenizer(f"{prompt}\n", return_tensors="pt").input_ids
    start = ids.shape[1]
    while (ids.shape[1] < start + 60 and ids[0, -1] != 2) or ids.shape[1] == start:
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(1)[None]], 1)
        if ids[0, -1] == 2:
            break
    assert lines[query.id]["texts"] == [tidy(tokenizer.decode(ids[0, start:], skip_special_tokens=True))]
    assert code == (0 if len(lines) == len(part.queries) else 1), err


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": {"content": [1]}}]}'),
        (200, b"[" * 10**5),
        (200, b"x" * (chat_service.MOST_BYTES + 1)),
        (401, b"no\x1b[31m key"),
        (302, b""),
    ],
)
def test_hostile_answers_are_errors(service, answer):
    service.answers = [answer]
    with pytest.raises(InputError) as caught:
        ChatService(service.address, "toy").answer("hello", 5)
    assert "\x1b" not in str(caught.value)
    assert len(service.requests) == 1


def test_a_busy_service_is_asked_again(service):
    service.answers = [(503, b""), (429, b""), (200, said("yes"))]
    assert ChatService(service.address, "toy", pause=0).answer("hello", 5) == "yes"
    service.answers = [(503, b"")]
    with pytest.raises(InputError, match="503"):
        ChatService(service.address, "toy", pause=0).answer("hello", 5)
    assert len(service.requests) == 6


def test_calls_that_cannot_be_meant(capsys, world, captioner, tmp_path, monkeypatch):
    out = tmp_path / "texts.jsonl"
    for words, expected in [
        (["--llm", "http://127.0.0.1:9/v1"], "--llm-model"),
        (["--llm", "http://x:y@127.0.0.1/v1", "--llm-model", "m"], "--llm"),
        (["--llm", tmp_path / "none.gguf"], "none.gguf"),
        (["--llm", captioner, "--prompt", "hello"], "{caption}"),
    ]:
        code, _, err = rewrite(capsys, world, captioner, *words, "--out", out)
        assert code == 2, err
        assert expected in err
    out.write_text('{"1": "of somebody else"}\n')
    code, _, err = rewrite(capsys, world, captioner, "--llm", "http://127.0.0.1:9", "--llm-model", "m", "--out", out)
    assert code == 2
    assert out.read_text() == '{"1": "of somebody else"}\n'
    monkeypatch.setenv(chat_service.KEY, "secret-key")
    with pytest.raises(UsageError, match="https") as caught:
        ChatService("http://example.org/v1", "m")
    assert "secret-key" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be asked"):
        ChatService("http://127.0.0.1:9/v1", "m").answer("hello", 5)


def test_answers_are_tidied():
    assert tidy('\n  "A red\tdog."\nHere is why') == "A red dog."
    assert tidy("\x1b[31mred") == "?[31mred"
    assert len(tidy("x" * 10**4)) == 500
    assert tidy(" \n") == ""
