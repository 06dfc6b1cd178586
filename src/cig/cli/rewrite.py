"""The command that writes target descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import ComputeFlags, DataFlags, Flag, Name, computing
from cig.runtime import Compute, say


def rewrite(
    benchmark: Name = None,
    /,
    *,
    captioner: str,
    llm: str,
    out: Annotated[Path, Parameter()],
    llm_model: str = "",
    prompt: str | None = None,
    caption_prompt: str | None = None,
    data: DataFlags = DataFlags(),
    compute: ComputeFlags = Compute(),
    overwrite: Annotated[bool, Flag] = False,
) -> None:
    """Caption each reference and let a language model describe the target, for --method texts. Resumable.

    Parameters
    ----------
    captioner
        An image-to-text model, hub id or folder; with --caption-prompt a vision-language model.
    llm
        A causal language model: hub id, folder, FILE.gguf, or the address of an OpenAI-compatible service, such as
        http://127.0.0.1:8080/v1. Its key, if it wants one, is read from CIG_LLM_KEY.
    out
        The file, JSONL: the settings, then a line a query.
    llm_model
        The service's name of the model.
    prompt
        What the language model is asked, with {caption} and {change} in it.
    caption_prompt
        What the captioner is asked. Default: nothing, for models that caption without a prompt.
    overwrite
        Write all of it again.
    """
    from cig.pipelines._models import complain
    from cig.pipelines.rewrite import PROMPT, Rewriting, rewrite

    rewriting = Rewriting(captioner, llm, llm_model, prompt=prompt or PROMPT, caption_prompt=caption_prompt)
    done = rewrite(data.named(benchmark), computing(compute, 1), rewriting, out=out, overwrite=overwrite)
    say(f"{out}: {done.written} texts written, {done.kept} kept; search by --method texts --method-option texts={out}")
    complain(done.missing, "have no text")
