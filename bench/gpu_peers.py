"""GPU peers of the kernels and the encoder: torch, transformers, sentence-transformers, FAISS."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from xtremely.engine.models.config import EncoderConfig
from xtremely.engine.text.batch import Batch
from xtremely.kernels.packing import Layout, Packed, pack, unpack
from xtremely.kernels.spec import Kernel, all_kernels

PADDED = 128  # sequences of a padded batch of the peers

Contenders = dict[str, Callable[[], Any]]


def attention(qkv: Tensor, layout: Layout, heads: int, flex: bool = True) -> Contenders:
    """The kernel, its torch reference and torch's attentions; padded ones get padded inputs."""
    from xtremely.kernels.attention import attention as ours
    from xtremely.kernels.attention import attention_ref

    dim = qkv.shape[1] // 3 // heads
    padded = unpack(Packed(qkv, layout.cu_seqlens, layout.max_seqlen))
    q, k, v = padded.view(len(layout.lengths), layout.max_seqlen, 3, heads, dim).permute(
        2, 0, 3, 1, 4
    )
    lengths = layout.cu_seqlens.diff()
    mask = (torch.arange(layout.max_seqlen, device=qkv.device) < lengths[:, None])[:, None, None]

    def padded_with(backend: SDPBackend, masked: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask if masked else None)

        return call

    def varlen() -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        borders, longest = layout.cu_seqlens, layout.max_seqlen
        parts = qkv.view(-1, 3, heads, dim).unbind(1)
        return varlen_attn(*parts, borders, borders, longest, longest)

    contenders = {
        "xtremely": lambda: ours(qkv, layout, heads),
        "twin: sdpa by runs of equal length": lambda: attention_ref(qkv, layout, heads),
        "torch varlen": varlen,
        "sdpa padded, flash, unmasked": padded_with(SDPBackend.FLASH_ATTENTION, False),
        "sdpa padded, cudnn, masked": padded_with(SDPBackend.CUDNN_ATTENTION, True),
        "sdpa padded, efficient, masked": padded_with(SDPBackend.EFFICIENT_ATTENTION, True),
    }
    if flex:  # compiled again for every layout
        contenders["flex, block-diagonal"] = _flex(qkv, layout, heads, dim)
    return contenders


def _flex(qkv: Tensor, layout: Layout, heads: int, dim: int) -> Callable[[], Tensor]:
    made: dict[str, Any] = {}

    def call() -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not made:
            owners = torch.repeat_interleave(
                torch.arange(len(layout.lengths), device=qkv.device), layout.cu_seqlens.diff()
            )
            made["mask"] = create_block_mask(
                lambda b, h, q, k: owners[q] == owners[k], None, None, len(qkv), len(qkv)
            )
            made["run"] = torch.compile(flex_attention)
        q, k, v = qkv.view(1, -1, 3, heads, dim).permute(2, 0, 3, 1, 4)
        return made["run"](q, k, v, block_mask=made["mask"])

    return call


def kernel_and_reference(kernel: Kernel, inputs: dict[str, Any]) -> Contenders:
    """The kernel, and its torch reference, eager and compiled."""
    compiled = torch.compile(kernel.ref)
    return {
        "xtremely": lambda: kernel.run(**inputs),
        "torch": lambda: kernel.ref(**inputs),
        "torch.compile": lambda: compiled(**inputs),
    }


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool) -> Contenders:
    """``kernel_and_reference``, and the library's matrix product without GELU."""
    inputs = {"x": x, "weight": weight, "bias": bias, "gelu": gelu}
    found = kernel_and_reference(all_kernels()["linear"], inputs)
    return {**found, "F.linear alone": lambda: F.linear(x, weight, bias)}


def topk(x: Tensor, y: Tensor, k: int) -> Contenders:
    """The kernel in one direction, in both, and exact; torch's product and topk; FAISS."""
    from xtremely.kernels.exact import topk_both_exact, topk_exact
    from xtremely.kernels.topk import topk as one_way
    from xtremely.kernels.topk import topk_both

    exact_x, exact_y = x.float(), y.float()
    host_x, host_y = exact_x.cpu().numpy(), exact_y.cpu().numpy()

    def product_and_topk(queries: Tensor, keys: Tensor) -> list[Tensor]:
        return [torch.topk(rows @ keys.T, k).indices for rows in queries.split(4096)]

    def faiss() -> object:
        import faiss

        resources = faiss.StandardGpuResources()
        return faiss.knn_gpu(
            resources,
            host_x,
            host_y,
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
        )

    compiled = torch.compile(product_and_topk)
    return {
        "xtremely, rows": lambda: one_way(x, y, k),
        "xtremely, both sides": lambda: topk_both(x, y, k),
        "xtremely, exact rows": lambda: topk_exact(exact_x, exact_y, k),
        "xtremely, exact both sides": lambda: topk_both_exact(exact_x, exact_y, k),
        "matmul and topk, rows": lambda: product_and_topk(x, y),
        "matmul and topk compiled, rows": lambda: compiled(x, y),
        "matmul and topk in fp32, rows": lambda: product_and_topk(exact_x, exact_y),
        "faiss.knn_gpu in fp32, rows, from host memory": faiss,
    }


def linear_fp8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    gelu: bool,
    out_scale: Tensor | None = None,
) -> Contenders:
    """The kernel, torch's scaled fp8 matrix product, and the library's product in 16 bits."""
    from xtremely.kernels.linear_fp8 import linear_fp8 as ours

    arguments = (x, x_scale, weight, weight_scale, bias, gelu, out_scale)
    wide_x, wide_weight = x.to(bias.dtype), weight.to(bias.dtype)

    def scaled(fast: bool) -> Callable[[], Tensor]:
        def call() -> Tensor:
            return torch._scaled_mm(
                x,
                weight.T,
                x_scale[:, None],
                weight_scale[None],
                bias=bias,
                out_dtype=bias.dtype,
                use_fast_accum=fast,
            )

        return call

    return {
        "xtremely": lambda: ours(*arguments),
        "torch._scaled_mm alone": scaled(False),
        "torch._scaled_mm alone, fast sums": scaled(True),
        "F.linear alone, 16 bits": lambda: F.linear(wide_x, wide_weight, bias),
    }


class Encoders:
    """The encoder contenders: one BertModel with random weights, run in several ways.

    Args:
        config: the model's size.
        device: the device that it runs on.
        precision: of weights and activations.
    """

    def __init__(self, config: EncoderConfig, device: torch.device, precision: torch.dtype):
        from transformers import BertConfig, BertModel

        settings = BertConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate,
            max_position_embeddings=config.max_length,
        )
        with torch.device(device):
            self.model = BertModel(settings, add_pooling_layer=False).to(precision).eval()
        self.device = device

    def on(self, batch: Batch, compiled: bool) -> Contenders:
        """Contenders for a batch; those of transformers get its sequences sorted and padded."""
        parts = self._padded(batch)

        def padded(attention: str, run: Callable[..., Any]) -> Callable[[], Tensor]:
            @torch.inference_mode()
            def call() -> Tensor:
                self.model.set_attn_implementation(attention)
                return torch.cat(
                    [
                        pack(run(part, attention_mask=mask).last_hidden_state, sizes).values
                        for part, mask, sizes in parts
                    ]
                )

            return call

        names = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
        found: Contenders = {
            f"transformers {name}, padded": padded(attention, self.model)
            for name, attention in names.items()
        }
        if compiled:
            found["transformers sdpa, layers compiled, padded"] = self._compiled(padded)
        found["sentence-transformers, tokenising too"] = self._sentences(batch)
        return found

    def _compiled(self, padded: Callable[..., Callable[[], Tensor]]) -> Callable[[], Tensor]:
        """Compiled layer by layer, with one compilation for all layers and lengths."""
        copy = deepcopy(self.model)
        made: list[Callable[[], Tensor]] = []

        def call() -> Tensor:
            if not made:
                copy.set_attn_implementation("sdpa")
                for layer in copy.encoder.layer:
                    layer.compile(dynamic=True)
                made.append(padded("sdpa", copy))
            return made[0]()

        return call

    def _padded(self, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
        ids = unpack(Packed(batch.input_ids, batch.cu_seqlens, batch.max_seqlen))
        parts = []  # longest sequences first; each part is padded to its longest
        for start in range(0, len(ids), PADDED):
            lengths = batch.layout.lengths[start : start + PADDED]
            sizes = torch.tensor(lengths, device=self.device)
            mask = (torch.arange(lengths[0], device=self.device) < sizes[:, None]).long()
            parts.append((ids[start : start + PADDED, : lengths[0]].contiguous(), mask, sizes))
        return parts

    def _sentences(self, batch: Batch) -> Callable[[], Tensor]:
        """``SentenceTransformer.encode`` of equally many sentences of the same lengths in words."""
        made: list[Any] = []
        texts = [" ".join(["word"] * max(1, n - 2)) for n in batch.layout.lengths]

        def call() -> Tensor:
            if not made:
                made.append(_sentence_transformer(self.model, self.device))
            self.model.set_attn_implementation("sdpa")
            return made[0].encode(
                texts, batch_size=PADDED, convert_to_tensor=True, show_progress_bar=False
            )

        return call


def _sentence_transformer(model: Any, device: torch.device) -> Any:
    """sentence-transformers around a model, with a tokenizer of one word."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(("[PAD]", "[CLS]", "[SEP]", "word"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="word"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    small = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    with tempfile.TemporaryDirectory() as folder:
        BertModel(small).save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=512
        ).save_pretrained(folder)
        transformer = Transformer(folder)
    transformer.model = model
    pooling = Pooling(model.config.hidden_size, "mean")
    return SentenceTransformer(modules=[transformer, pooling], device=str(device))
