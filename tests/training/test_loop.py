"""The loop between and within its steps: a stop, and a model that cannot be written."""

import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from cig.errors import InputError, OutputError
from cig.io.tensors import read_tensors
from cig.runtime import Interrupted, stops_between_batches
from cig.training.checkpoint import CHECKPOINT
from cig.training.loop import train
from cig.training.plan import Plan

PLAN = Plan(4, batch=2, lr=0.1, warmup=1, save_every=2, ema=0.5)


def square(model):
    """A loss of random items, drawn anew at each step."""
    return lambda step: model(torch.randn(2, 3)).square().mean()


def fit(out, export, loss=square, plan=PLAN):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    train(model, loss(model), plan, out=out, export=lambda facts: export(model, facts), inputs={})
    return model.weight.detach().clone()


def test_steps_are_kept_where_the_model_cannot_be_written(tmp_path):
    """A rerun writes the model of the checkpoint first, then it goes on."""
    written, whole = [], []

    def full_disk(model, facts):
        if not written:
            written.append("failed")
            raise OutputError("the disk is full")
        written.append((facts["steps"], model.weight.tolist()))

    with pytest.raises(OutputError):
        fit(tmp_path / "broken", full_disk)
    assert read_tensors(tmp_path / "broken" / CHECKPOINT)["facts"]["steps"] == 2
    resumed = fit(tmp_path / "broken", full_disk)
    unbroken = fit(tmp_path / "whole", lambda model, facts: whole.append((facts["steps"], model.weight.tolist())))
    assert torch.equal(resumed, unbroken)
    assert written == ["failed", *whole]
    assert [steps for steps, _ in whole] == [2, 4]
    log = (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    assert len(log) == 2


def interrupt(seconds=0.0):
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


@pytest.mark.slow
def test_a_stop_ends_a_step_between_two_operations(tmp_path):
    """The gradients of 1,000 products would take several times as long as the signal waits."""
    moments, begun = {}, threading.Event()

    def stop():  # a thread that runs already: a busy machine may take its time to start one
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()

    def long(model):
        def loss(step):
            rows = model(torch.randn(256, 3)) * torch.ones(256)
            for _ in range(1000):
                rows = (rows @ torch.eye(256)).tanh()
            moments["backward"] = time.monotonic()
            begun.set()
            return rows.sum()

        return loss

    with pytest.raises(Interrupted, match="in step 1"):
        fit(tmp_path, lambda model, facts: None, long)
    stopped = time.monotonic() - moments["backward"]
    torch.manual_seed(0)
    rows = torch.ones(256, 256, requires_grad=True)
    loss = rows
    for _ in range(1000):
        loss = (loss @ torch.eye(256)).tanh()
    started = time.monotonic()
    loss.sum().backward()
    assert stopped < (time.monotonic() - started) / 2


def test_a_stop_waits_for_a_checkpoint(tmp_path):
    done = []

    def export(model, facts):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        done.append(facts["steps"])

    with stops_between_batches(), pytest.raises(Interrupted, match="step 2"):
        fit(tmp_path, export)
    assert done == [2]
    assert read_tensors(tmp_path / CHECKPOINT)["facts"]["steps"] == 2


def test_a_resumed_mean_is_its_own(tmp_path):
    """The checkpoint is mapped into memory: what a step changes must not be the file's."""
    fit(
        tmp_path / "a", lambda model, facts: None, plan=Plan(2, batch=2, lr=0.1, warmup=1, ema=0.5, schedule="constant")
    )
    before = (tmp_path / "a" / CHECKPOINT).read_bytes()
    longer = Plan(4, batch=2, lr=0.1, warmup=1, ema=0.5, schedule="constant")
    os.link(tmp_path / "a" / CHECKPOINT, tmp_path / "copy.pt")
    resumed = fit(tmp_path / "a", lambda model, facts: None, plan=longer)
    assert (tmp_path / "copy.pt").read_bytes() == before
    assert torch.equal(resumed, fit(tmp_path / "b", lambda model, facts: None, plan=longer))


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04 cut", {"a": torch.ones(1)}, [1], {"n" * 20_000: 1}])
def test_a_checkpoint_that_is_something_else(tmp_path, content):
    path = tmp_path / CHECKPOINT
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=CHECKPOINT):
        fit(tmp_path, lambda model, facts: None)
    assert path.read_bytes() == before
