"""Random adapters of PEFT, and what PEFT itself computes with them."""

import peft
import torch
import transformers

TEXTS = ["Hello there", "人人生而自由", "all human beings are born free", "x", ""]
WEIGHTS = "adapter_model.safetensors"


def adapt(base, folder, settings, auto="AutoModel", rows=None, **labels):
    """Save a random adapter for a model, and return PEFT's own unmerged model."""
    model = getattr(transformers, auto).from_pretrained(base, **labels)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = peft.get_peft_model(model, settings)
    for one in adapted.parameters():
        if one.requires_grad:
            one.data += 0.1 * torch.randn_like(one)
    adapted.save_pretrained(folder)
    return adapted.eval()


@torch.no_grad()
def outputs(model, folder, texts=TEXTS):
    """What PEFT's model gives for every text alone, with the folder's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [model(tokenizer(text, return_tensors="pt")["input_ids"])[0][0] for text in texts]


def means(states):
    vectors = torch.stack([one.mean(dim=0) for one in states])
    return torch.nn.functional.normalize(vectors, dim=1).numpy()


def lora(**settings):
    return peft.LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1, **settings)
