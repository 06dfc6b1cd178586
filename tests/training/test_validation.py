"""What a training is validated on."""

import shutil

from cig.training.validation import load_validation


def test_a_gallery_without_its_list_is_said(world, tmp_path, capsys):
    home = shutil.copytree(world / "CIRR", tmp_path / "CIRR")
    load_validation("cirr/val", root=home)
    assert capsys.readouterr().err == ""
    shutil.rmtree(home / "cirr/image_splits")
    load_validation("cirr/val", root=home)
    assert "cirr/val is validated on the 60 pictures found" in capsys.readouterr().err
