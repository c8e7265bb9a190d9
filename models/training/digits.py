"""The offline default: a small vision transformer on scikit-learn's digits, in seconds and without downloads.

Pre-trained on the digits 0-4 in full, then fine-tuned by LoRA on the digits 5-9, which it has never seen: the
transfer that adapters are for, at a size for tests and demonstrations. It is no stand-in for language.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from edgealloc.errors import needs
from edgealloc.models.training.backbone import Backbone, LoraSpec, require_training
from edgealloc.models.training.examples import Examples

OLD, NEW = range(5), range(5, 10)
_EPOCHS, _BATCH, _RATE = 8, 32, 2e-3

# So small a model needs all its linear layers adapted; names as in transformers 5 and 4.
DIGITS_LORA = LoraSpec(
    rank=4,
    alpha=8,
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "query", "key", "value", "dense"),
    last_layers=None,
)
# A learning rate that suits it (the default suits language models).
DIGITS_LEARNING_RATE = 1e-2


def load_digits(classes: range) -> Examples:
    """Return the 8 x 8 images of these digits from scikit-learn.

    Parameters
    ----------
    classes
        The digits, without a gap.

    Returns
    -------
    :class:`~edgealloc.models.training.examples.Examples`
        ``pixel_values`` [N, 1, 8, 8] in [-1, 1]; labels [N] count from 0.

    Raises
    ------
    MissingPackageError
        Without scikit-learn.
    """
    needs("sklearn", "train", "the offline default data", "scikit-learn")
    from sklearn.datasets import load_digits as sklearn_digits

    images, labels = sklearn_digits(return_X_y=True)
    chosen = np.isin(labels, list(classes))
    pixels = (images[chosen].reshape(-1, 1, 8, 8) / 8.0 - 1.0).astype(np.float32)
    return Examples({"pixel_values": pixels}, labels[chosen].astype(np.int64) - classes[0])


@lru_cache(maxsize=4)
def _pretrained(seed: int) -> dict[str, Any]:
    """Train the backbone on the old digits; returns its state dict without the head."""
    import torch

    model = _fresh(len(OLD), seed).train()
    data = load_digits(OLD)
    pixels = torch.from_numpy(data.inputs["pixel_values"])
    labels = torch.from_numpy(data.labels)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE)
    for _ in range(_EPOCHS):
        for batch in np.array_split(rng.permutation(len(data)), len(data) // _BATCH):
            loss = model(pixel_values=pixels[batch], labels=labels[batch]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: v for name, v in model.state_dict().items() if not name.startswith("classifier")}


def _fresh(classes: int, seed: int) -> Any:
    """A vision transformer of random weights, drawn by the seed."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.num_labels = classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTForImageClassification(config)


def digits_backbone(seed: int = 0) -> Backbone:
    """Return the pre-trained backbone with a fresh head for the new digits.

    Parameters
    ----------
    seed
        Draws backbone and head.

    Returns
    -------
    Backbone
        Without a tokenizer.

    Raises
    ------
    MissingPackageError
        Without torch, transformers, peft or scikit-learn.
    """
    require_training()
    model = _fresh(len(NEW), seed + 1)
    missing = model.load_state_dict(_pretrained(seed), strict=False).missing_keys
    assert all(name.startswith("classifier") for name in missing)
    return Backbone(model)
