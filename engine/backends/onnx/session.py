"""Opens ONNX files in onnxruntime: chooses the provider and checks the file.

onnxruntime silently falls back if a provider does not start. Here that is an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.external_data_helper import ExternalDataInfo

from xtremely.engine.backends.onnx.graph import OPSET
from xtremely.kernels.guard import InputError, require, unknown

# Our name -> onnxruntime's. "auto" takes CUDA on a GPU and the CPU elsewhere, never TensorRT, which
# compiles an engine for every shape and so only pays where there are few shapes.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_INSTALL = {
    "cpu": "pip install 'xtremely[cpu]'",
    "cuda": "pip install 'xtremely[gpu]' in place of [cpu]",
    "tensorrt": "pip install 'xtremely[gpu]' in place of [cpu], and TensorRT",
    "openvino": "pip install onnxruntime-openvino in place of onnxruntime",
}


def runtime() -> Any:
    """The onnxruntime module."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "onnxruntime is not installed: pip install 'xtremely[cpu]', or [gpu] on a GPU"
        ) from error
    return onnxruntime


def provider(name: str, device: torch.device) -> str:
    """onnxruntime's name of the provider that runs a model on a device.

    Args:
        name: one of ``PROVIDERS``, or ``auto``.
        device: device of the results.

    Raises:
        UsageError: no such name.
        InputError: the installed onnxruntime lacks the provider, or it is for another device.
    """
    if name == "auto":
        name = "cuda" if device.type == "cuda" else "cpu"
    if name not in PROVIDERS:
        raise unknown("provider", name, ("auto", *PROVIDERS))
    there = runtime().get_available_providers()
    legal = [known for known, full in PROVIDERS.items() if full in there]
    require(
        PROVIDERS[name] in there,
        f"provider {name!r} is not in the onnxruntime installed here, which has"
        f" {', '.join(legal)}; {_INSTALL[name]}",
    )
    on = "cuda" if name in ("cuda", "tensorrt") else "cpu"
    require(
        device.type == on,
        f"provider {name!r} computes on {on}, --device is {device}; name another of the two",
    )
    return name


def check_file(path: Path, model_hash: str | None = None) -> onnx.ModelProto:
    """Load and check a file that this project exported; external weights are not loaded.

    Args:
        path: the .onnx file.
        model_hash: hash of the model that was exported; None accepts any.

    Raises:
        InputError: the file is missing, damaged, not exported by this project, of another model, or
            of an opset that this version does not write.
    """
    require(path.is_file(), f"{path}: there is no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises several types for a damaged file
        raise InputError(f"{path}: no ONNX model, or damaged; export it again") from error
    about = {entry.key: entry.value for entry in model.metadata_props}
    require(
        "model_hash" in about,
        f"{path}: was not written by xtremely export (no model_hash in its metadata)",
    )
    if model_hash is not None and about["model_hash"] != model_hash:
        raise InputError(
            f"{path}: is of another model, {about.get('model', 'unknown')} with hash"
            f" {about['model_hash'][:12]}; expected {model_hash[:12]}: export this model"
        )
    opset = next((one.version for one in model.opset_import if one.domain == ""), None)
    require(
        opset == OPSET,
        f"{path}: opset {opset}; this version of xtremely writes and reads {OPSET}: export again",
    )
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, ExternalDataInfo(tensor), tensor.name)
    return model


def _check_external(path: Path, info: ExternalDataInfo, name: str) -> None:
    data = path.parent / info.location
    require(
        Path(info.location).name == info.location,
        f"{path}: its weights lie in {info.location!r}, outside its folder; not read",
    )
    size = data.stat().st_size if data.is_file() else 0
    needed = (info.offset or 0) + (info.length or 0)
    require(
        size >= needed,
        f"{data}: {size} bytes, {name} needs {needed}: the file is truncated or missing; export"
        " again, and keep both files together",
    )


def open_session(path: Path, name: str, device: torch.device) -> Any:
    """An onnxruntime session that runs on the given provider.

    Args:
        path: the .onnx file.
        name: the provider, as returned by ``provider``.
        device: where it computes.

    Raises:
        InputError: the file cannot be run, or the provider did not start.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    settings = {"device_id": device.index or 0} if device.type == "cuda" else {}
    try:
        session = ort.InferenceSession(
            os.fspath(path), options, providers=[(PROVIDERS[name], settings)]
        )
    except Exception as error:  # onnxruntime's exceptions have no other common base
        raise InputError(f"{path}: onnxruntime cannot run it ({_first_line(error)})") from error
    started = session.get_providers()
    require(
        started[0] == PROVIDERS[name],
        f"provider {name!r} did not start, onnxruntime would silently run on {started[0]}; check"
        " that its libraries are installed and fit the driver",
    )
    return session


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
