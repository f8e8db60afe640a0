"""Changes to an encoder's weights, for values that ordinary encoders rarely have."""

import torch

from xtremely.engine.models.modernbert import ModernBert


def far_means(made):
    """Whatever is normalised lies around 1,000."""
    made.embeddings.norm.bias += 1000
    for layer in made.layers:
        for norm in (layer.attention_norm, layer.norm):
            norm.bias += 1000 * (not isinstance(made, ModernBert))
        for linear in (layer.attention_out, layer.down):
            linear.bias += 1000
        layer.qkv.weight -= layer.qkv.weight.mean(dim=1, keepdim=True)
        layer.up.weight -= layer.up.weight.mean(dim=1, keepdim=True)


def far_scores(made):
    """Keys' scores lie hundreds apart: only the largest as reference keeps their powers finite."""
    for layer in made.layers:
        hidden = len(layer.qkv.weight) // 3
        layer.qkv.weight[: 2 * hidden] *= 6


def low_scores(made):
    """Every score of a first layer is far below 0."""
    hidden = len(made.layers[0].qkv.weight) // 3
    bias = made.layers[0].qkv.bias
    bias[:hidden], bias[hidden : 2 * hidden] = 12.0, -12.0


def wide_gelu(made):
    """GELU sees all from far below 0, where it is 0, to far above, where it changes nothing."""
    for layer in made.layers:
        layer.up.bias += torch.linspace(-15, 15, len(layer.up.bias))


def nothing_left(made):
    """GELU's results are all 0."""
    for layer in made.layers:
        layer.up.bias -= 60


def below_zero(made):
    """GELU sees negative values only, where it is least: its largest result is not its largest
    input's.
    """
    for layer in made.layers:
        layer.up.weight *= 0.05
        layer.up.bias.fill_(-0.75)
