"""Replies as a malicious client would make them: each is left out by name, and the merge is the others' alone."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate
from edgealloc.models.exchange.dropout import Masks, full_masks, slice_adapter
from edgealloc.models.exchange.faults import medians_of_others
from edgealloc.models.exchange.replies import AdapterShape, Gathered, gather, masks_for

rng = np.random.default_rng(3)
A, B, HEAD = "enc.q.lora_A.weight", "enc.q.lora_B.weight", "head.weight"
STATE = {
    A: (rng.normal(size=(2, 8)) / 3).astype(np.float32),
    B: rng.normal(size=(12, 2)).astype(np.float32),
    HEAD: rng.normal(size=(3, 12)).astype(np.float32),
}
SHAPE = AdapterShape.from_state(STATE)
RULES = [
    Aggregation(*words)  # type: ignore[arg-type]
    for words in itertools.product(
        ("zero", "keepers"), ("samples", "uniform"), ("none", "exact", "fair", "project")
    )
]


def honest(k: int, state: Mapping[str, Any] = STATE) -> Update:
    """A device that has trained a little."""
    masks, noise = masks_for(SHAPE, 0.5, 40 + k), np.random.default_rng(k)
    slices = slice_adapter(state, masks)
    moved = {n: v + 0.01 * noise.normal(size=v.shape).astype(v.dtype) for n, v in slices.items()}
    return Update(moved, masks, 100.0 + 10 * k)


class Rude:
    """Whatever is asked of it, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} for you")

    __len__ = __iter__ = __array__ = __float__ = __getitem__ = lambda self, *rest: self.nothing


class Liar(np.ndarray):  # type: ignore[type-arg]
    """An array that says that it is finite, and multiplies in its own way."""

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return np.ones(self.shape, dtype=bool) if ufunc is np.isfinite else np.full(self.shape, np.nan)


class Endless(dict[str, Any]):
    """A mapping whose items never end."""

    def items(self) -> Any:
        return ((f"x{k}", np.zeros(1)) for k in itertools.count())


def piece(change: Callable[[Any], Any], name: str = A) -> Callable[[Update], Any]:
    """One tensor of a reply replaced."""
    return lambda reply: replace(reply, slices={**reply.slices, name: change(reply.slices[name])})


def first(value: Any, dtype: Any = None) -> Callable[[Any], Any]:
    """One entry of a tensor set."""

    def change(array: Any) -> Any:
        changed = array.astype(dtype or array.dtype)
        changed.flat[0] = value
        return changed

    return change


def masked(**sides: Any) -> Callable[[Update], Any]:
    """The masks of a reply replaced."""
    return lambda reply: replace(reply, masks=replace(reply.masks, **sides))


def ragged(array: Any) -> Any:
    out = np.empty(array.shape, dtype=object)
    out[...] = [[[0.0]]]
    return out


def claims(samples: Any) -> Callable[[Update], Any]:
    return lambda reply: replace(reply, samples=samples)


# What came instead of a sound reply, and what the reason has to say.
ATTACKS: dict[str, tuple[Callable[[Update], Any], str]] = {
    # no reply at all
    "none": (lambda reply: None, "of type NoneType, must be an Update"),
    "text": (lambda reply: "update", "of type str"),
    "number": (lambda reply: 7, "of type int"),
    "dict": (lambda reply: {"slices": reply.slices}, "of type dict"),
    "array": (lambda reply: np.zeros(3), "must be an Update"),
    "class": (lambda reply: Update, "must be an Update"),
    "look-alike": (lambda reply: SimpleNamespace(slices=reply.slices, masks=reply.masks, samples=1), "an Update"),
    "rude": (lambda reply: Rude(), "must be an Update|cannot be read"),
    # tensors that are missing, too many, or not named as asked
    "slices none": (lambda reply: replace(reply, slices=None), "slices is of type NoneType"),
    "slices list": (lambda reply: replace(reply, slices=list(reply.slices.values())), "slices is of type list"),
    "slices rude": (lambda reply: replace(reply, slices=Rude()), "slices is of type Rude"),
    "slices empty": (lambda reply: replace(reply, slices={}), "missing: .*enc.q.lora_A"),
    "slices endless": (lambda reply: replace(reply, slices=Endless()), "missing"),
    "lacks one": (lambda r: replace(r, slices={n: v for n, v in r.slices.items() if n != HEAD}), "missing.*head"),
    "one too many": (lambda r: replace(r, slices={**r.slices, "x": np.zeros(1)}), r"not known: \['x'\]"),
    "many too many": (lambda r: replace(r, slices={**r.slices, **{f"x{k}": 0 for k in range(99)}}), "not known"),
    "keys of all kinds": (lambda r: replace(r, slices={**r.slices, 3: 0, None: 1, (): 2}), "not known: .*3, None"),
    "key with control": (lambda r: replace(r, slices={**r.slices, "\x1b[2J\n": 0}), r"\\x1b\[2J\\n"),
    # what is no array of real numbers
    "tensor none": (piece(lambda a: None), "of type NoneType, must be a numpy array"),
    "tensor list": (piece(lambda a: a.tolist()), "of type list"),
    "tensor ragged list": (piece(lambda a: [[1.0], [1.0, 2.0]]), "of type list"),
    "tensor number": (piece(lambda a: 1.0), "of type float"),
    "tensor text": (piece(lambda a: "0.1"), "of type str"),
    "tensor bytes": (piece(lambda a: a.tobytes()), "of type bytes"),
    "tensor rude": (piece(lambda a: Rude()), "must be a numpy array|cannot be read"),
    "sparse": (piece(lambda a: SimpleNamespace(shape=a.shape, dtype=a.dtype, data=a)), "must be a numpy array"),
    "hidden entries": (piece(lambda a: np.ma.masked_array(a, np.ones(a.shape, bool))), "must be a numpy array"),
    "objects": (piece(lambda a: a.astype(object)), "type 'object'"),
    "objects, ragged": (piece(ragged), "type 'object'"),
    "strings": (piece(lambda a: a.astype(str)), "numbers of type '<U"),
    "bytes each": (piece(lambda a: a.astype("S8")), "numbers of type"),
    "complex": (piece(lambda a: a + 1j), "numbers of type 'complex"),
    "booleans": (piece(lambda a: a > 0), "numbers of type 'bool'"),
    "integers": (piece(lambda a: a.astype(np.int64)), "numbers of type 'int64'"),
    "dates": (piece(lambda a: a.astype("M8[s]")), "numbers of type"),
    "records": (piece(lambda a: np.zeros(a.shape, [("x", float)])), "numbers of type"),
    # shapes
    "0-d": (piece(lambda a: np.ones((), np.float32)), r"shape \[\]"),
    "flat": (piece(lambda a: a.ravel()), "shape"),
    "transposed": (piece(lambda a: a.T), "shape"),
    "one short": (piece(lambda a: a[:, :-1]), "shape"),
    "one long": (piece(lambda a: np.pad(a, ((0, 0), (0, 1)))), "shape"),
    "one axis more": (piece(lambda a: a[None]), "shape"),
    "no entry": (piece(lambda a: a[:0]), "shape"),
    "head of another": (piece(lambda a: a[:2], HEAD), "head.weight: shape"),
    "a billion by stride": (piece(lambda a: np.broadcast_to(np.float32(1), (10**5, 10**5))), "shape"),
    # numbers that are none, here or in the adapter's format
    "nan": (piece(first(np.nan)), "1 of 8 numbers are not finite"),
    "inf": (piece(first(-np.inf), HEAD), "1 of 36 numbers are not finite"),
    "nan in half": (piece(first(np.nan, np.float16)), "not finite"),
    "too large for the format": (piece(first(1e300, np.float64)), "not finite in float32"),
    "too large for a double": (piece(first(np.longdouble("1e4000"), np.longdouble)), "not finite in float32"),
    "liar": (piece(lambda a: first(np.nan)(a).view(Liar)), "not finite"),
    # magnitudes
    "largest number": (piece(first(np.finfo(np.float32).max)), "changes the adapter by"),
    "all of it huge": (
        lambda r: replace(r, slices={n: v + 1e30 for n, v in r.slices.items()}),
        "changes the adapter",
    ),
    "a thousand times": (lambda r: replace(r, slices={n: 1e3 * v for n, v in r.slices.items()}), "at most"),
    # masks
    "masks none": (lambda reply: replace(reply, masks=None), "masks is of type NoneType"),
    "masks rude": (lambda reply: replace(reply, masks=Rude()), "must be Masks|cannot be read"),
    "masks of nothing": (lambda reply: replace(reply, masks=Masks({}, {})), "columns is .*must hold one mask"),
    "masks of no rows": (masked(rows={}), "rows is"),
    "masks of another layer": (masked(columns={"enc.v": np.ones(8, bool)}), "columns is"),
    "masks of two layers": (masked(rows={"enc.q": np.ones(12, bool), "enc.v": np.ones(12, bool)}), "rows is"),
    "masks a list": (masked(columns=[True] * 8), "columns is of type list"),
    "mask a list": (masked(columns={"enc.q": [True] * 8}), "of type list"),
    "mask of numbers": (masked(columns={"enc.q": np.full(8, 2)}), "true or false"),
    "mask of indices": (masked(rows={"enc.q": np.arange(6)}), "true or false"),
    "mask too long": (masked(rows={"enc.q": np.ones(13, bool)}), "must have 12 entries"),
    "mask square": (masked(rows={"enc.q": np.ones((12, 1), bool)}), "must have 12 entries"),
    "mask of more": (masked(rows={"enc.q": np.ones(12, bool)}), "shape|other masks"),
    # samples
    "samples none": (claims(None), "samples is None"),
    "samples text": (claims("400"), "samples is '400'"),
    "samples nan": (claims(float("nan")), "samples is nan"),
    "samples inf": (claims(float("inf")), "samples is inf"),
    "samples zero": (claims(0), "samples is 0"),
    "samples negative": (claims(-5), "samples is -5"),
    "samples true": (claims(True), "samples is True"),
    "samples complex": (claims(1 + 1j), "samples is "),
    "samples array": (claims(np.ones(2)), "samples is array"),
    "samples beyond doubles": (claims(10**400), "samples is 1000"),
    "samples of 5000 digits": (claims(10**5000), "samples is <int>"),
    "samples rude": (claims(Rude()), "samples is <"),
}


def same(got: Gathered, expected: Gathered) -> None:
    """Equal to the last bit."""
    assert got.weights == expected.weights
    for ours, theirs in ((got.state, expected.state), (got.base_residual, expected.base_residual)):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)
            assert np.all(np.isfinite(value))


def known(*devices: int) -> dict[str, Any]:
    """What a server knows: the plan's counts and its own masks, of these devices and of the bad one."""
    names = {f"d{k}": honest(k) for k in devices} | {"bad": honest(9)}
    return {"samples": {n: u.samples for n, u in names.items()}, "masks": {n: u.masks for n, u in names.items()}}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_bad_reply_is_left_out_by_name_and_nothing_raises(attack: str) -> None:
    make, reason = ATTACKS[attack]
    good = {f"d{k}": honest(k) for k in range(3)}
    for told in ({}, known(0, 1, 2)):
        got = gather(STATE, {**good, "bad": make(honest(9))}, **told)
        assert set(got.rejected) == {"bad"}
        assert re.search(reason, got.rejected["bad"]), got.rejected["bad"]
        assert len(got.rejected["bad"]) < 400
        assert got.rejected["bad"].isprintable()
        same(got, gather(STATE, good, **told))
    lonely = gather(STATE, {"bad": make(honest(9))})
    assert set(lonely.rejected) == {"bad"}
    for value in lonely.state.values():
        assert np.all(np.isfinite(value))


@settings(max_examples=60, deadline=None)
@given(
    bad=st.lists(st.sampled_from(sorted(ATTACKS)), max_size=4),
    good=st.sets(st.integers(0, 8), min_size=5),
    rule=st.sampled_from(RULES),
    told=st.booleans(),
)
def test_any_crowd_of_bad_replies_changes_nothing(
    bad: list[str], good: set[int], rule: Aggregation, told: bool
) -> None:
    """Up to four liars among at least five honest ones, under every rule: the merge is that of the honest."""
    honest_ones = {f"d{k}": honest(k) for k in good}
    liars = {f"bad{i}": ATTACKS[name][0](honest(9)) for i, name in enumerate(bad)}
    names = {**honest_ones, **{name: honest(9) for name in liars}}
    server: dict[str, Any] = {}
    if told:
        server = {
            "samples": {name: update.samples for name, update in names.items()},
            "masks": {name: update.masks for name, update in names.items()},
        }
    got = gather(STATE, {**liars, **honest_ones}, rule, **server)
    assert set(got.rejected) == set(liars)
    same(got, gather(STATE, honest_ones, rule, **server))


@pytest.mark.parametrize("claim", [1e308, 5e-324, 10**300, np.float32(3.5), 1])
def test_counts_are_the_plans_and_a_claim_that_differs_is_noted(claim: Any) -> None:
    good = {f"d{k}": honest(k) for k in range(3)}
    counts = {name: update.samples for name, update in good.items()}
    lied = gather(STATE, {**good, "d1": replace(good["d1"], samples=claim)}, samples=counts)
    same(lied, gather(STATE, good, samples=counts))
    assert lied.rejected == {}
    assert set(lied.noted) == {"d1"}
    assert "counted with the plan's 110" in lied.noted["d1"]
    assert gather(STATE, good, samples=counts).noted == {}


def test_without_the_plan_a_claim_beyond_any_device_is_rejected() -> None:
    good = {f"d{k}": honest(k) for k in range(3)}
    got = gather(STATE, {**good, "bad": replace(honest(9), samples=1e308)})
    assert "at most 1e+09" in got.rejected["bad"]
    same(got, gather(STATE, good))


def test_who_was_not_asked_is_not_heard() -> None:
    good = {f"d{k}": honest(k) for k in range(3)}
    for told in (known(0, 1, 2), {"samples": known(0, 1, 2)["samples"]}, {"masks": known(0, 1, 2)["masks"]}):
        got = gather(STATE, {**good, "stranger": honest(4)}, **told)
        assert got.rejected == {"stranger": "it was not asked in this round"}
        same(got, gather(STATE, good, **told))


def test_masks_of_the_reply_do_not_count_where_the_server_has_its_own() -> None:
    """A device that returns everything would otherwise be the only keeper of what nobody was sent."""
    good = {f"d{k}": honest(k) for k in range(3)}
    whole = Update(slice_adapter(STATE, full_masks(SHAPE)), full_masks(SHAPE), 120.0)
    got = gather(STATE, {**good, "bad": whole}, Aggregation("keepers"), **known(0, 1, 2))
    assert "other masks" in got.rejected["bad"]


def test_sound_replies_of_other_formats_are_taken() -> None:
    """Half and double precision, read-only mappings, and numpy's own numbers are no offence."""
    for dtype in (np.float16, np.float64, ">f4"):
        slices = MappingProxyType({name: value.astype(dtype) for name, value in honest(1).slices.items()})
        reply = replace(honest(1), slices=slices, samples=np.int32(110))
        got = gather(STATE, {"d1": reply, "d2": honest(2)})
        assert (got.rejected, set(got.weights)) == ({}, {"d1", "d2"})
        assert {value.dtype for value in got.state.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("correction", ["none", "fair", "project"])
def test_an_adapter_in_half_precision_stays_one_and_finite(correction: Any) -> None:
    """70000 is a number in single precision and none in half."""
    half = {name: value.astype(np.float16) for name, value in STATE.items()}
    good = {f"d{k}": honest(k, half) for k in range(3)}
    large = replace(
        honest(9, half), slices={n: first(7e4, np.float32)(v) for n, v in honest(9, half).slices.items()}
    )
    got = gather(half, {**good, "bad": large}, Aggregation(correction=correction))
    assert "not finite in float16" in got.rejected["bad"]
    same(got, gather(half, good, Aggregation(correction=correction)))
    assert {value.dtype for value in got.state.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("correction", ["none", "exact", "fair", "project"])
def test_a_merge_that_overflows_leaves_the_largest_change_out(correction: Any) -> None:
    """Without the bound on changes, each reply is finite and their product is not."""
    wide = {name: value.astype(np.float64) for name, value in STATE.items()}
    good = {f"d{k}": honest(k, wide) for k in range(3)}
    huge = replace(honest(9, wide), slices={n: np.full_like(v, 1e300) for n, v in honest(9, wide).slices.items()})
    got = gather(wide, {**good, "bad": huge}, Aggregation(correction=correction), largest_change=np.inf)
    for value in (*got.state.values(), *got.base_residual.values()):
        assert np.all(np.isfinite(value))
    if correction != "none":
        assert "not finite" in got.rejected["bad"]
        same(got, gather(wide, good, Aggregation(correction=correction)))


def test_the_bound_goes_by_the_others_and_by_the_adapter() -> None:
    """Everybody may change it much; one alone, or beside one other, as far as the adapter itself is large."""

    def scaled(k: int, factor: float) -> Update:
        reply = honest(k)
        return replace(reply, slices={n: np.float32(factor) * v for n, v in reply.slices.items()})

    assert not gather(STATE, {f"d{k}": scaled(k, 100.0) for k in range(3)}).rejected
    for others in (
        {},
        {"d0": honest(0)},
        {"d0": replace(honest(0), slices=slice_adapter(STATE, honest(0).masks))},
    ):
        assert set(gather(STATE, {**others, "bad": scaled(9, 100.0)}).rejected) == {"bad"}
        assert not gather(STATE, {**others, "d1": scaled(1, 10.0)}).rejected
    assert not gather(STATE, {"d0": honest(0), "bad": scaled(9, 100.0)}, largest_change=np.inf).rejected
    zero = {name: np.zeros_like(value) for name, value in STATE.items()}
    assert not gather(zero, {"d1": honest(1, zero)}).rejected  # nothing to compare with


def test_the_servers_own_faults_are_the_servers() -> None:
    for bad in (np.full((3, 12), np.nan, np.float32), np.zeros((3, 12), int)):
        with pytest.raises(InputError, match=r"adapter: head\.weight"):
            gather({**STATE, HEAD: bad}, {"d0": honest(0)})
    for count in (np.nan, -1.0, "5", None, 1e308):
        with pytest.raises(InputError, match="d0: samples"):
            gather(STATE, {"d0": honest(0)}, samples={"d0": count})  # type: ignore[dict-item]
    for bound in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="largest_change"):
            gather(STATE, {"d0": honest(0)}, largest_change=bound)
    with pytest.raises(ValueError, match="a finite one"):
        aggregate(STATE, [replace(honest(0), samples=1e308)] * 2, Aggregation())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 10])
def test_the_median_of_all_others(count: int) -> None:
    """Each as if it were looked for alone, with ties and infinite changes among them."""
    values = np.random.default_rng(count).choice([0.0, 0.5, 0.5, 1.0, 3.0, np.inf], count).tolist()
    wanted = [float(np.median(values[:i] + values[i + 1 :])) if count > 1 else 0.0 for i in range(count)]
    assert medians_of_others(values) == pytest.approx(wanted)


def test_thousands_of_replies_are_measured_quickly() -> None:
    """The median of all others, found anew for every reply, took the square of their number."""
    started = time.process_time()
    assert len(medians_of_others([float(i % 97) for i in range(20_000)])) == 20_000
    assert time.process_time() - started < 5.0
