"""Who spoils a round: planted sets are found, and what they send moves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.models.exchange.aggregation import Aggregation, aggregate
from edgealloc.models.exchange.contaminated import personal_changes, screen
from edgealloc.models.exchange.dropout import draw_masks, full_masks, slice_adapter
from edgealloc.models.exchange.replies import gather
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import AdapterShape, LoraLayer, State, a_name, b_name
from edgealloc.verify.solution import verify

RANK, N_OUT, N_IN, DEVICES = 3, 24, 40, 10
LAYERS = ("one", "two")
SHAPE = AdapterShape(tuple(LoraLayer(name, N_IN, N_OUT, RANK) for name in LAYERS))
MASKS = full_masks(SHAPE)
CLAIR = Aggregation(robust="clair")


def planted(
    seed: int, bad: int, noise: float, kind: str = "foreign", devices: int = DEVICES
) -> tuple[State, list[Update]]:
    """Devices that read one subspace a layer but for noise of this size beside it; the first ``bad`` do not."""
    rng = np.random.default_rng([seed, bad, int(1000 * noise)])
    previous: dict[str, np.ndarray] = {}
    sent: list[dict[str, np.ndarray]] = [{} for _ in range(devices)]
    for layer in LAYERS:
        previous |= {
            a_name(layer): rng.standard_normal((RANK, N_IN)),
            b_name(layer): np.zeros((N_OUT, RANK)),
        }
        common, other = (np.linalg.qr(rng.standard_normal((N_IN, RANK)))[0].T for _ in range(2))
        for k, slices in enumerate(sent):
            mine = rng.standard_normal((RANK, RANK))
            a = mine @ (other if k < bad and kind == "together" else common)
            beside = rng.standard_normal((RANK, N_IN))
            beside *= np.linalg.norm(a) / np.linalg.norm(beside)
            a = a + (1.0 if k < bad and kind == "added" else noise) * beside
            if k < bad and kind == "foreign":
                a = beside
            slices |= {a_name(layer): a, b_name(layer): rng.standard_normal((N_OUT, RANK))}
    return previous, [Update(slices, MASKS, 10.0 + k) for k, slices in enumerate(sent)]


def scaled(update: Update, factor: float) -> Update:
    return replace(update, slices={n: v * factor if ".lora_B." in n else v for n, v in update.slices.items()})


def found(previous: State, updates: Sequence[Update]) -> list[int]:
    return np.flatnonzero(~screen(previous, updates).sound).tolist()


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_the_planted_set_is_found_in_ten_of_ten_draws(bad: int, noise: float) -> None:
    for seed in range(10):
        assert found(*planted(seed, bad, noise)) == list(range(bad)), seed


@pytest.mark.parametrize("kind", ["together", "added"])
def test_those_who_agree_with_each_other_and_those_who_add_to_a_sound_change_are_found(kind: str) -> None:
    for seed in range(3):
        assert found(*planted(seed, 4, 0.1, kind)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["foreign", "together", "added"])
def test_the_merged_adapter_does_not_move_when_a_contaminated_change_grows_a_million_fold(kind: str) -> None:
    previous, updates = planted(0, 3, 0.1, kind)
    merged = aggregate(previous, updates, CLAIR)
    for factor in (1e-6, 1e6, 1e150, 1e300):
        grown = aggregate(previous, [scaled(u, factor) if k < 3 else u for k, u in enumerate(updates)], CLAIR)
        for name, value in merged.state.items():
            np.testing.assert_array_equal(value, grown.state[name])
    plain = aggregate(previous, updates[3:], Aggregation())
    assert all(np.array_equal(value, plain.state[name]) for name, value in merged.state.items())


def test_a_sound_change_that_is_a_million_times_too_large_is_left_out_for_its_size() -> None:
    previous, updates = planted(0, 0, 0.1)
    updates[4] = scaled(updates[4], 1e6)
    reasons = screen(previous, updates).reasons
    assert [k for k, why in enumerate(reasons) if why] == [4]
    assert "root mean square" in reasons[4]


def test_one_device_comes_back_however_far_it_moved_and_broken_ones_set_no_scale() -> None:
    previous, updates = planted(0, 0, 0.1)
    near = {name: 1e-3 * np.ones_like(value) for name, value in previous.items()}
    merged = aggregate(near, updates[:1], CLAIR)
    for name, value in merged.state.items():
        np.testing.assert_allclose(value, updates[0].slices[name], rtol=1e-15)
    broken = replace(updates[0], slices={n: np.full_like(v, np.nan) for n, v in updates[0].slices.items()})
    assert found(near, [*updates[:4], broken, broken, broken, broken]) == [4, 5, 6, 7]


@pytest.mark.parametrize("devices", [3, 5, 10])
def test_without_a_subspace_in_common_nobody_is_foreign(devices: int) -> None:
    """Half of the devices are always above the median, which says nothing where it is that of strangers."""
    for seed in range(5):
        previous, updates = planted(seed, 0, 100.0, devices=devices)
        screening = screen(previous, updates)
        assert screening.sound.all(), screening
        assert screening.threshold == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_numbers_that_are_none_do_not_raise_and_are_left_out(value: float) -> None:
    previous, updates = planted(0, 0, 0.1)
    broken = {n: np.full_like(v, value) for n, v in updates[2].slices.items()}
    updates[2] = replace(updates[2], slices=broken)
    assert found(previous, updates) == [2]
    merged = aggregate(previous, updates, CLAIR)
    assert all(np.all(np.isfinite(v)) for v in merged.state.values())
    everybody = aggregate(previous, [replace(updates[2], samples=float(n)) for n in (1, 2, 3)], CLAIR)
    if not np.isfinite(value):
        assert all(np.array_equal(v, previous[n]) for n, v in everybody.state.items())


def test_changes_of_zero_are_nobodys_fault() -> None:
    previous, updates = planted(0, 2, 0.1)
    updates[5] = scaled(updates[5], 0.0)
    assert found(previous, updates) == [0, 1]
    still = [scaled(u, 0.0) for u in updates]
    assert found(previous, still) == []
    assert screen(previous, still).subspace == {}
    assert screen(previous, []).reasons == ()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_identical_devices_are_a_fixed_point(count: int) -> None:
    previous, updates = planted(0, 0, 0.1)
    same = [replace(updates[0], samples=float(k + 1)) for k in range(count)]
    merged = aggregate(previous, same, CLAIR)
    assert merged.screening is not None
    assert merged.screening.sound.all()
    for name, value in merged.state.items():
        np.testing.assert_allclose(value, updates[0].slices[name], rtol=1e-13)
    for own in personal_changes(previous, same, merged.screening):
        for layer, change in own.items():
            product = updates[0].slices[b_name(layer)] @ updates[0].slices[a_name(layer)]
            np.testing.assert_allclose(change, product, rtol=0, atol=1e-12 * np.linalg.norm(product))


def test_personal_changes_are_ones_own_inside_and_the_sound_mean_outside() -> None:
    previous, updates = planted(0, 3, 0.1)
    screening = screen(previous, updates)
    personal = personal_changes(previous, updates, screening)
    weights = np.array([u.samples for u in updates[3:]]) / sum(u.samples for u in updates[3:])
    for layer in LAYERS:
        changes = [u.slices[b_name(layer)] @ u.slices[a_name(layer)] for u in updates]
        mean = np.tensordot(weights, changes[3:], 1)
        rows = screening.subspace[layer]
        inside = rows.T @ rows
        np.testing.assert_allclose(rows @ rows.T, np.eye(RANK), atol=1e-12)
        for k, change in enumerate(changes):
            own = change if k >= 3 else mean
            expected = own @ inside + mean @ (np.eye(N_IN) - inside)
            np.testing.assert_allclose(personal[k][layer], expected, atol=1e-10)


def test_later_rounds_are_judged_by_what_a_device_changed() -> None:
    """From a model that has learned already: the server's product is taken off."""
    previous, updates = planted(0, 3, 0.1)
    rng = np.random.default_rng(0)
    for layer in LAYERS:
        previous[b_name(layer)] = rng.standard_normal((N_OUT, RANK))
    idle = Update(slice_adapter(previous, MASKS), MASKS, 10.0)
    screening = screen(previous, [*updates, idle])
    assert np.isnan(screening.residual[-1])
    assert np.all(np.isfinite(screening.residual[:-1]))
    assert screening.sound[-1]


def test_the_opposite_of_what_the_others_have_in_common_is_left_out() -> None:
    """It reads the same subspace, so that only its direction gives it away."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        previous, updates = planted(seed, 0, 0.1)
        common = {n: rng.standard_normal(v.shape) for n, v in updates[0].slices.items()}
        agreed = [
            replace(u, slices={n: common[n] + 0.5 * rng.standard_normal(v.shape) for n, v in u.slices.items()})
            for u in updates
        ]
        assert found(previous, agreed) == []
        turned = [scaled(u, -1.0) if k in (1, 4, 5) else u for k, u in enumerate(agreed)]
        assert found(previous, turned) == [1, 4, 5]
        assert all("against" in screen(previous, turned).reasons[k] for k in (1, 4, 5))


def test_holes_are_not_screened() -> None:
    previous, updates = planted(0, 2, 0.1)
    holes = draw_masks(SHAPE, 0.5, np.random.default_rng(0))
    some = [Update(slice_adapter(u.slices, holes), holes, u.samples) for u in updates]
    with pytest.raises(ValueError, match="holes"):
        screen(previous, some)
    assert aggregate(previous, some, CLAIR).screening is None


def test_one_reply_with_holes_does_not_switch_the_screening_off() -> None:
    """Where the server has not drawn the masks, a reply could bring its own; where it has, they are checked."""
    previous, updates = planted(0, 3, 0.1)
    holes = draw_masks(SHAPE, 0.97, np.random.default_rng(0))
    updates[0] = Update(slice_adapter(updates[0].slices, holes), holes, 10.0)
    replies = {f"d{k}": u for k, u in enumerate(updates)}
    rejected = gather(previous, replies, CLAIR).rejected
    assert sorted(rejected) == ["d0", "d1", "d2"]
    assert "it has holes" in rejected["d0"]
    drawn = dict.fromkeys(replies, MASKS)
    assert "other masks" in gather(previous, replies, CLAIR, masks=drawn).rejected["d0"]
    dropped = [Update(slice_adapter(u.slices, holes), holes, 10.0) for u in planted(0, 3, 0.1)[1]]
    most = {f"d{k}": u for k, u in enumerate(dropped)}
    assert gather(previous, most, CLAIR).rejected == {}  # a round with dropout


def test_gather_names_who_is_left_out_and_gives_the_others_all_the_weight() -> None:
    previous, updates = planted(0, 2, 0.1)
    taken = gather(previous, {f"d{k}": u for k, u in enumerate(updates)}, CLAIR)
    assert sorted(taken.rejected) == ["d0", "d1"]
    assert all("off the common subspace" in why for why in taken.rejected.values())
    assert sum(taken.weights.values()) == pytest.approx(1.0)
    merged = aggregate(previous, updates[2:], Aggregation())
    assert all(np.array_equal(taken.state[name], value) for name, value in merged.state.items())


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="robust = 'median'; allowed: none, clair"):
        Aggregation(robust="median")  # type: ignore[arg-type]


def test_those_who_are_left_take_part_in_the_allocation(make_instance) -> None:
    """Flags become an instance: whoever is left out leaves n, the weights and the spectrum to the others."""
    previous, updates = planted(0, 2, 0.1, devices=6)
    instance = make_instance(devices=6)
    sound = screen(previous, updates).sound
    rest = instance.take(sound)
    assert rest.num_devices == 4
    assert rest.total_samples == instance.total_samples - instance.samples[:2].sum()
    assert rest.weights.sum() == pytest.approx(1.0)
    result = solve(rest, rel_gap=1e-6)
    assert verify(rest, result.solution()).ok
