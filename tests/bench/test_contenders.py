"""Who takes part in a comparison."""

from types import SimpleNamespace

import pytest
import torch

from xtremely.bench.contenders import BASELINE, EAGER, OURS, OWN, names

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 160}
IN_CPP = {"xtremely native", "xtremely native int8"}


@pytest.mark.parametrize(
    ("family", "device", "changes", "left_out"),
    [
        ("bert", "cpu", SIZES, set()),
        ("bert", "cuda", SIZES, IN_CPP),
        ("bert", "cpu", {**SIZES, "num_attention_heads": 16}, IN_CPP),
        ("modernbert", "cpu", SIZES, set()),
        ("distilbert", "cpu", SIZES, {"xtremely native int8"}),
    ],
)
def test_only_what_runs_the_model_on_the_device_takes_part(
    make_tiny, tmp_path, monkeypatch, family, device, changes, left_out
):
    monkeypatch.setattr(
        "xtremely.bench.contenders.unavailable_reason", lambda d: None if d.type == "cpu" else "no"
    )
    monkeypatch.setattr(
        "xtremely.bench.contenders.unsupported_reason",
        lambda config, form: "odd" if config.heads == 16 else None,
    )
    backend = SimpleNamespace(device=torch.device(device))
    engine = SimpleNamespace(folder=make_tiny(family, **changes), backend=backend)
    found = names(tmp_path, engine)
    assert found[0] == EAGER and {OURS, BASELINE} <= {*found}
    assert {*OWN} - {*found} == left_out
