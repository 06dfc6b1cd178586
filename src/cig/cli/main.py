"""The command line: the verbs, what stands for a flag that is not given, and how calls end.

A flag that is not given is looked up by its group's name in the environment and in cig.toml (see config.py).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, Token

from cig import config
from cig.cli import (
    check,
    compare,
    download,
    index,
    models,
    pipeline,
    reproduce,
    rewrite,
    score,
    search,
    serve,
    train,
    train_oti,
    train_phi,
    train_words,
    trial,
)
from cig.cli.fitting import misfits
from cig.cli.flags import Flag
from cig.cli.terminal import messages_on_stderr
from cig.errors import CigError, NotFoundError, UsageError, plain, printable, reason
from cig.runtime import say

app = App(
    name="cig",
    help="Composed image retrieval: a picture and a sentence find the picture you mean.",
    help_epilogue="Every verb takes --debug, which shows the traceback of an error.",
    version=lambda: metadata.version("cig"),
    suppress_keyboard_interrupt=False,
)
VERBS: list[Callable[..., None]] = [
    search.demo,
    *(pipeline.extract, pipeline.generate, pipeline.evaluate, pipeline.submit, pipeline.run),
    *(compare.compare, rewrite.rewrite, score.score, search.search, serve.serve, trial.trial, pipeline.plan),
    *(check.check, check.stats, check.validate_submission),
    *(download.download, download.convert_urls),
    reproduce.reproduce,
]
for verb in VERBS:
    app.command(verb)
training = App(name="train", help="Trains what composed retrieval is made of: CLIPs, words, phis, generators.")
for part in (
    *(train.clip, train.vae, train.generator),
    *(train_words.concepts, train_words.phrases, train_oti.oti, train_phi.phi),
):
    training.command(part)
app.command(training)
indexing = App(name="index", help="An index of your own pictures: cig search opens it.")
for verb in (index.build, index.info, index.verify, index.add, index.remove):
    indexing.command(verb)
app.command(indexing)
weights = App(name="models", help="The weights that methods and generators want: which, where from, whether sound.")
weights.command(models.list_, name="list")
weights.command(models.check)
weights.command(models.download)
app.command(weights)


@app.command
def cache(folder: Path | None = None, /, *, clear: Annotated[bool, Flag] = False) -> None:
    """Shows what a feature cache holds, or empties it.

    Parameters
    ----------
    folder
        Default: feature_cache of cig.toml's [search], or CIG_SEARCH_FEATURE_CACHE; else that of cig search.
    clear
        Forget everything. It can all be computed again.
    """
    from cig.io.feature_cache import FILE, FeatureCache, summary

    if folder is None:
        setting = config.value("search", "feature_cache") or config.Setting(str(config.user_cache()), "cig search")
        folder = Path(setting.value)
        say(f"the cache of {setting.source}: {folder}; of another: cig cache FOLDER")
        if not os.path.lexists(folder / FILE):
            print(f"{folder} has no features yet; cig search, or --feature-cache FOLDER of another verb, keeps them")
            return
    print(summary(folder))
    if clear:
        FeatureCache(folder).clear()
        print("cleared")


@app.command(name="config")
def show_config(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """What is in force, and where each value came from: a flag, the environment, cig.toml, or the default.

    Parameters
    ----------
    words
        A verb with its flags, to see what that call would use: cig config run cirr/val --method lincir.
    """
    from cig.retrieval.requests import OWN_METHOD

    _in_force.clear()
    try:
        app.parse_args(list(words) or ["run"], exit_on_error=False, print_error=False)
    except MissingArgumentError:  # settings are looked up before: a verb without its arguments shows them, too
        pass
    except CycloptsError as error:
        raise UsageError(f"cig config {' '.join(words)}: {error}") from error
    if (method := _in_force.get("search.method")) and method.source == "default" and method.value == "none":
        _in_force["search.method"] = config.Setting(OWN_METHOD, "default of a folder; an index has its own")
    paths = {} if words else {key: config.path_setting(key) for key in config.PATHS}
    settings = {**paths, **_in_force}
    width = max(map(len, settings), default=0)
    lines = [f"{name:{width}}  {setting.value:44}  {setting.source}" for name, setting in settings.items()]
    print("\n".join(lines) or "this verb takes no setting from cig.toml or the environment")


_in_force: dict[str, config.Setting] = {}  # of the call in hand


def _fill_in(_: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Give a value to each flag of a table in cig.toml that the call does not have.

    The environment wins over cig.toml, which wins over the presets of the generator. A generator that the call names
    wins over both: `--generator sdxl/icons` means that generator as it is shipped, whatever cig.toml says of another.
    What does not fit the call is not used, and named.
    """
    folder = config.project()
    if folder != Path() and commands[-1:] != ("config",):  # that verb shows them itself
        say(f"settings and default places are those of {folder / config.FILE}")
    generator = _generator(arguments)
    settings: dict[str, config.Setting] = {}
    unset: dict[str, Any] = {}  # the flags that the call does not give
    for argument in arguments:
        if any(token.value == "" for token in argument.tokens) and "Path" in str(argument.hint):
            raise UsageError(f'{argument.names[0]} "": name a file or a folder')
        _need_finite(argument)
        table = next((group.name for group in argument.parameter.group or () if group.name in config.TABLES), None)
        if not table or argument.children or not argument.parse:
            continue
        flag = argument.names[0]
        key = flag.removeprefix("--").replace("-", "_").removeprefix("search_").removeprefix("compose_")
        preset, outside = config.of_generator(generator.value, table, key), config.value(table, key)
        setting = (preset or outside) if generator.source == GENERATOR else (outside or preset)
        if argument.tokens:
            setting = config.Setting(argument.tokens[0].value, flag)
        else:
            unset[f"{table}.{key}"] = argument
        settings[f"{table}.{key}"] = setting or config.Setting(str(argument.field_info.default) or "none", "default")
    takes = {argument.names[0]: bool(argument.tokens) for argument in arguments}
    unfit = misfits(
        settings,
        set(settings) - set(unset),
        pseudo_targets=takes.get("--generated-image-dir", True) or commands[-1:] == ("trial",),
        branches="--branch" in takes and (takes["--branch"] or bool(config.branch_tables())),
    )
    for name, setting in settings.items():
        if name in unfit:
            say(f"{setting.source}: {name} = {setting.value} is not used: {unfit[name]}")
            settings[name] = replace(setting, source=f"{setting.source}, not used: {unfit[name]}")
        elif name in unset and setting.source != "default":
            token = Token(keyword=unset[name].names[0], value=setting.value, source=setting.source)
            unset[name].append(token)
            _need_finite(unset[name])
    _in_force.update(settings)


def _need_finite(argument: Any) -> None:
    """Raise UsageError for a flag that takes a float and has a NaN or an infinity."""
    if float not in (argument.hint, *get_args(argument.hint)):
        return
    for token in argument.tokens:
        with contextlib.suppress(ValueError):  # no number at all, which cyclopts refuses
            if not math.isfinite(float(token.value)):
                source = f" of {token.source}" if token.source not in ("", "cli") else ""
                raise UsageError(f"{argument.names[0]} {token.value}{source}: a finite number, such as 0.5")


GENERATOR = "--generator"


def _generator(arguments: Any) -> config.Setting:
    """Return the generator's name: by its flag, the environment, cig.toml or the default."""
    tokens = [argument.tokens[0] for argument in arguments if argument.names[0] == GENERATOR and argument.tokens]
    if tokens and tokens[0].value:
        return config.Setting(tokens[0].value, GENERATOR)
    return config.value("generate", "generator") or config.Setting(config.DEFAULT_GENERATOR, "default")


app.config = (_fill_in,)


def main(argv: list[str] | None = None) -> None:
    """Exit codes: 0 done, 1 a failed run, 2 a wrong call, 130 Ctrl-C. No traceback for a user's mistake."""
    from cig.machine import is_out_of_memory
    from cig.runtime import Interrupted, stops_between_batches

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack letters of a name
    try:
        with messages_on_stderr(), stops_between_batches():
            app([argument for argument in arguments if argument != "--debug"])
    except CigError as error:
        if debug:
            raise
        hint = config.project_above() if isinstance(error, NotFoundError) else ""
        _end("\n".join(filter(None, [str(error), hint])), error.exit_code)
    except KeyboardInterrupt as stop:
        kept = f"nothing of it is kept: {stop.lost}" if isinstance(stop, Interrupted) and stop.lost else KEPT
        _end(f"{str(stop) or 'interrupted'}; {kept}", 130)
    except BrokenPipeError:  # cig ... | head: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        raise SystemExit(141) from None
    except OSError as error:
        if debug or error.errno not in {*WRONG_PATH, *REFUSED}:
            raise
        what = plain(str(error.filename or "a file"), 200)
        _end(
            f"{what} cannot be used: {error.strerror}; give another, or access to it",
            2 if error.errno in WRONG_PATH else 1,
        )
    except (RuntimeError, MemoryError) as error:
        if debug or not is_out_of_memory(error):
            raise
        _end(f"{reason(error)}\n{MEMORY}", 1)


# What the system says of a path that a user named, where no reader or writer of ours says it in its own words.
WRONG_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENXIO)

KEPT = "what was finished is kept, and a rerun goes on from there"
MEMORY = (
    "Out of memory: lower --batch-size (run: --search-batch-size, too), or --workers if the machine's own ran out; in "
    "generate and run also --offload model, --vae-slicing, --attention-slicing, a smaller --height and --width. "
    "What was finished is kept, and a rerun goes on from there"
)


def _end(message: str, code: int) -> NoReturn:
    print(printable(f"cig: {message}", "\n\t"), file=sys.stderr)
    raise SystemExit(code) from None
