"""What a benchmark is searched with, as the scripts of CIG, SEARLE and LinCIR name it -> the request of a search.

SEARLE's code names an experiment, a folder below data/; LinCIR's names a file and a CLIP by its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cig import config
from cig.benchmarks import Data, split_name
from cig.errors import UsageError
from cig.io.json_files import read_object
from cig.methods import CLIPS, split_method
from cig.retrieval.requests import Searching
from cig.runtime import say

LINCIR_CLIPS = {"large": CLIPS["l14"], "huge": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "giga": CLIPS["g14"]}
LINCIR_DEFAULT = "giga"
PUBLISHED_SPLITS = {"test1": "test"}  # a release's name -> that of SEARLE's folders
NORMALISED = "l2_normalize=yes"  # the option of lincir and pic2word


@Parameter(name="*")
@dataclass(frozen=True)
class TargetFlags:
    generated_image_dir: Path | None = None
    "Pseudo-targets by query id; {category} stands for FashionIQ's categories."
    exp_name: str | None = None
    """As in SEARLE's code: with --eval-type phi the folder ./data/phi_models/EXP-NAME, with --eval-type oti
    ./data/oti_pseudo_tokens/DATASET/SPLIT/EXP-NAME."""
    phi_checkpoint_name: str | None = None
    "With --exp-name: the file in its checkpoints folder. Without, as in LinCIR's code: the path of a phi."
    clip_model_name: Literal["large", "huge", "giga"] | None = None
    "The CLIP of that path's phi, as in LinCIR's code. Default: giga."
    l2_normalize: Annotated[bool, Parameter(negative="")] = False
    "As in LinCIR's code: pictures' features have unit length before phi (lincir, pic2word)."

    def completed(
        self, search: Searching, branch: Sequence[str], data: Data, *, default_split: str = "val"
    ) -> Searching:
        """Return the search of the data with its pseudo-targets, branches, and what the published flags name."""
        from cig.cli.branch_flags import requested_branches

        if self.exp_name:
            family, split = split_name(data.name, default_split)
            search = self._of_searle(self.exp_name, search, f"{family}/{PUBLISHED_SPLITS.get(split, split)}")
        elif self.phi_checkpoint_name or self.clip_model_name or self.l2_normalize:
            search = self._of_lincir(search)
        branches = requested_branches(branch, search, pseudo_targets=bool(self.generated_image_dir))
        return replace(search, pseudo_targets=self.generated_image_dir, branches=branches)

    def _of_searle(self, exp_name: str, search: Searching, benchmark: str) -> Searching:
        """Return the search with an experiment of SEARLE's code.

        Raises:
            UsageError: flags that exclude or lack each other, or a CLIP that SEARLE's code does not know.
            NotFoundError: the experiment's folder has no hyperparameters.json.
        """
        if search.phi:
            raise UsageError(f"--exp-name names what --phi {search.phi} names, too; give one of them")
        if self.clip_model_name or self.l2_normalize:
            raise UsageError("--exp-name is of SEARLE's code, --clip_model_name and --l2_normalize are of LinCIR's")
        is_oti = split_method(search.method)[0] == "oti"
        if is_oti and self.phi_checkpoint_name:
            raise UsageError("--eval-type oti has words, and no phi: leave --phi-checkpoint-name out")
        if not is_oti and not self.phi_checkpoint_name:
            raise UsageError(
                "--exp-name and --phi-checkpoint-name come together; for an experiment's words: --eval-type oti"
            )
        base = f"data/oti_pseudo_tokens/{benchmark}" if is_oti else "data/phi_models"
        folder = Path(config.below_project(base)) / exp_name
        clip_name = str(read_object(folder / "hyperparameters.json").get("clip_model_name", ""))
        hub_ids = {"ViT-B/32": "b32", "ViT-L/14": "l14"}
        if not search.clip and clip_name not in hub_ids:
            raise UsageError(f'{folder}: CLIP "{clip_name}" is not {" or ".join(hub_ids)}; give --clip')
        if is_oti:
            return replace(search, method="oti" if search.clip else f"oti/{hub_ids[clip_name]}", phi=folder)
        checkpoint = folder / "checkpoints" / str(self.phi_checkpoint_name)
        return replace(search, clip=search.clip or CLIPS[hub_ids[clip_name]], phi=checkpoint)

    def _of_lincir(self, search: Searching) -> Searching:
        """Return the search as LinCIR's code does it; raise UsageError for a method that it does not have."""
        method = "lincir" if search.method == "phi" else search.method
        flags = {"--phi-checkpoint-name": self.phi_checkpoint_name, "--clip_model_name": self.clip_model_name}
        given = [flag for flag, value in {**flags, "--l2_normalize": self.l2_normalize}.items() if value]
        if split_method(method)[0] not in ("lincir", "pic2word"):
            raise UsageError(
                f"{given[0]} without --exp-name is of LinCIR's code: with --eval-type phi or pic2word, "
                f"found {search.method}; SEARLE's takes --exp-name, too"
            )
        clip, phi = search.clip, search.phi
        if self.clip_model_name and clip:
            raise UsageError(f"--clip_model_name {self.clip_model_name} and --clip {clip}: give one of them")
        if self.phi_checkpoint_name and phi:
            raise UsageError(f"--phi-checkpoint-name {self.phi_checkpoint_name} and --phi {phi}: give one of them")
        if self.phi_checkpoint_name or self.clip_model_name:
            clip = clip or LINCIR_CLIPS[self.clip_model_name or LINCIR_DEFAULT]
            phi = Path(self.phi_checkpoint_name) if self.phi_checkpoint_name else phi
            say(f"{' and '.join(given)} as in LinCIR's code: --method {method} --clip {clip} --phi {phi}")
        options = (*search.method_option, NORMALISED) if self.l2_normalize else search.method_option
        return replace(search, method=method, clip=clip, phi=phi, method_option=options)
