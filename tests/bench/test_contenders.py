"""Who takes part in a comparison of encoders."""

import torch

from xtremely.bench.contenders import BASELINE, EAGER, OURS, OWN, names


def test_only_what_runs_on_the_device_takes_part(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "xtremely.bench.contenders.lacking", lambda d: "" if d.type == "cpu" else "no"
    )
    here, there = (names(tmp_path, torch.device(device)) for device in ("cpu", "cuda"))
    assert here[0] == there[0] == EAGER and {BASELINE, *OWN} <= {*here}
    assert {*here} - {*there} == {"xtremely native", "xtremely native int8"}
    assert OURS in there
