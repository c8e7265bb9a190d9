r"""The loss of a whole training run by rounds and keep rate, fitted to the curves of pilot runs.

.. math:: F(R, s) = L + \frac{D}{1 + (a R s^q)^\alpha} + \frac{E R^b}{\sqrt{1 + l (1 - s^2)}}

Learning, the second term, falls in the rounds R and in the keep rate s; overfitting, the third, grows in both. At
a keep rate below 1 a round brings less: R s^q are the *effective* rounds. Why this form, and what it was compared
with, is in docs/run_curves.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.data.learning import LearningSpec
from edgealloc.models.trials.curves import LearningCurves
from edgealloc.models.trials.fit import refuse_doubtful
from edgealloc.units import BoolArray, FloatArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgealloc.data.instance import Instance

__all__ = ["CONSTANTS", "LearningFit", "fit_learning", "past", "predicted_loss", "slopes"]

# The constants in their order, and how far each may go: what an instance allows, within what rounds can tell.
CONSTANTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "floor": (1e-3, 1e3),
        "drop": (1e-3, 1e3),
        "pace": (1e-4, 50.0),
        "exponent": (0.15, 8.0),
        "order": (0.3, 12.0),
        "overfit": (1e-9, 10.0),
        "growth": (0.1, 5.0),
        "protection": (1e-3, 1e4),
    }
)

_SPIKE = 0.1  # relative error beyond which a point counts by its size and no more by its square
_PAST = 1.3  # loss, in the least of its curve, beyond which no plan goes: what it is exactly does not count

# What must hold before a curve is believed; see LearningFit.doubts.
_LEARNED = 0.95  # least test loss, in that of knowing the classes' frequencies alone
_NOISE = 3.0  # span of the losses, in the noise of their means
_EXPLAINED = 0.5  # error of the fit, in the standard deviation of the losses: three quarters of the variance
_MISFIT, _MISFIT_NOISE = 0.08, 4.0  # error of the fit, as a share of the loss before training and in the noise
_REGRET, _REGRET_NOISE = 0.1, 3.0  # what the fit's choice loses against the best measured, likewise


def predicted_loss(constants: Mapping[str, float], rounds: ArrayLike, keep: ArrayLike) -> FloatArray:
    """Return F at numbers of rounds and keep rates common to all devices.

    Parameters
    ----------
    constants
        The eight constants by name: ``floor`` L, ``drop`` D, ``pace`` a, ``exponent`` q, ``order`` alpha,
        ``overfit`` E, ``growth`` b, ``protection`` l.
    rounds, keep
        Any two shapes that numpy broadcasts.

    Returns
    -------
    array
        F in nats.
    """
    c = constants
    count, rate = np.asarray(rounds, dtype=float), np.asarray(keep, dtype=float)
    with np.errstate(over="ignore"):
        learning = c["drop"] / (1.0 + (c["pace"] * count * rate ** c["exponent"]) ** c["order"])
        overfitting = c["overfit"] * count ** c["growth"] / np.sqrt(1.0 + c["protection"] * (1.0 - rate**2))
    return np.asarray(c["floor"] + learning + overfitting)


@dataclass(frozen=True, slots=True, eq=False)
class LearningFit:
    """Fitted constants, and how well they fit.

    Parameters
    ----------
    constants
        The eight constants by name, as :func:`predicted_loss` takes them.
    curves
        What they were fitted to.
    """

    constants: Mapping[str, float]
    curves: LearningCurves

    def loss(self, rounds: ArrayLike, keep: ArrayLike) -> FloatArray:
        """Return F in nats at rounds and keep rates common to all devices. The shape both are broadcast to."""
        return predicted_loss(self.constants, rounds, keep)

    @property
    def predicted(self) -> FloatArray:
        """F where the pilots were scored, nan elsewhere. Shape [P, R]."""
        c = self.curves
        return np.where(np.isnan(c.loss), math.nan, self.loss(c.rounds[None, :], c.keep[:, None]))

    @property
    def rms_error(self) -> float:
        """Root mean square of F - test loss in nats, over all rates and the rounds that a plan may go to."""
        return _rms((self.predicted - self.curves.loss)[~past(self.curves)])

    @property
    def rms_error_near(self) -> float:
        """The same where the loss is within .15 nats of the least one measured, which is where a plan ends."""
        return _rms((self.predicted - self.curves.loss)[self.curves.loss <= self.curves.best[2] + 0.15])

    @property
    def choice(self) -> tuple[float, int]:
        """The keep rate and the number of rounds, among those measured, at which F is least."""
        rate, column = np.unravel_index(np.nanargmin(self.predicted), self.predicted.shape)
        return float(self.curves.keep[rate]), int(column) + 1

    @property
    def regret(self) -> float:
        """The loss measured at :attr:`choice`, above the least one measured, in nats."""
        keep, rounds = self.choice
        row = int(np.argmin(np.abs(self.curves.keep - keep)))
        return float(self.curves.loss[row, rounds - 1]) - self.curves.best[2]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these constants say nothing about a run; empty where nothing speaks against them."""
        c, found = self.curves, []
        least, span = c.best[2], float(np.nanmax(c.loss) - np.nanmin(c.loss))
        noise, deviation = c.mean_noise, float(np.nanstd(c.loss))
        scale = float(np.nanmax(c.loss)) if math.isnan(c.blind_loss) else c.blind_loss
        if least >= _LEARNED * c.blind_loss:
            found.append(
                f"the pilot learned nothing: its least test loss is {least:.3f} nats, and knowing how frequent "
                f"each class is gives {c.blind_loss:.3f}; train longer, or at another learning rate"
            )
        if span <= _NOISE * noise:
            found.append(
                f"the pilot tells neither rounds nor rates apart: test losses span {span:.3f} nats, their means "
                f"are good to {noise:.3f}; more seeds, or more rounds"
            )
        if self.rms_error >= _EXPLAINED * deviation:
            found.append(
                f"no form fits: the error is {self.rms_error:.3f} nats rms, and the losses deviate from their own "
                f"mean by {deviation:.3f}; more seeds, or a measured bound for a fixed number of rounds"
            )
        elif self.rms_error > max(_MISFIT * scale, _MISFIT_NOISE * (0.0 if math.isnan(noise) else noise)):
            found.append(
                f"no form fits: the error is {self.rms_error:.3f} nats rms, with means that are good to "
                f"{noise:.3f} and a loss of {scale:.3f} before training"
            )
        if self.regret > max(_REGRET * scale, _REGRET_NOISE * (0.0 if math.isnan(noise) else noise)):
            keep, rounds = self.choice
            found.append(
                f"the fit's choice, dropout {1 - keep:.2f} and {rounds} rounds, lost {self.regret:.3f} nats more "
                "than the best measured: it would mislead"
            )
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the pilot runs, without a doubt about the fit."""
        c, found = self.curves, [f"left out: {words}" for words in self.curves.left_out]
        if c.still_falling:
            found.append(
                f"every pilot had its least loss in its last round: nothing is known of overfitting, nor of runs "
                f"longer than {c.loss.shape[1]} rounds; train longer (--rounds)"
            )
        if math.isnan(c.mean_noise):
            found.append("one seed: the noise of the pilot runs is not known")
        return tuple(found)

    def apply(self, instance: Instance, *, anyway: bool = False) -> Instance:
        """Return the instance with its ``learning`` block replaced.

        Parameters
        ----------
        instance
            The cell.
        anyway
            Whether constants that say nothing (``doubts``) are taken all the same.

        Returns
        -------
        Instance
            With the learning curve.

        Raises
        ------
        InputError
            For constants that say nothing.
        """
        if not anyway:
            refuse_doubtful("learning", self.doubts)
        return instance.with_changes(learning=LearningSpec(form="effective-rounds", **self.constants))

    def report(self) -> str:
        """Return the fit in a few lines, the misfit included."""
        c, k = self.curves, self.constants
        noise = "unknown (one seed)" if math.isnan(c.mean_noise) else f"{c.mean_noise:.3f}"
        keep, rounds = self.choice
        best_keep, best_rounds, best_loss = c.best
        saves = "saves" if k["exponent"] < 1.0 else "costs"
        lines = [
            f"learning, {c.data}, rule {c.rule}: L = {k['floor']:.4g}, D = {k['drop']:.4g}, a = {k['pace']:.4g}, "
            f"q = {k['exponent']:.3g}, alpha = {k['order']:.3g}, E = {k['overfit']:.3g}, b = {k['growth']:.3g}, "
            f"l = {k['protection']:.3g}",
            f"fit error {self.rms_error:.3f} nats rms, {self.rms_error_near:.3f} near the least loss; noise of "
            f"the pilot means {noise}",
            f"least loss: fitted at dropout {1 - keep:.2f}, round {rounds}; measured {best_loss:.3f} at "
            f"{1 - best_keep:.2f}, round {best_rounds}; lost by following the fit {self.regret:.3f} nats",
            f"equal progress takes s^-q rounds, so uploads go with s^(1 - q): with this rule dropout {saves} them",
        ]
        for rate, row, guess in zip(c.keep, c.loss, self.predicted, strict=True):
            at, said = int(np.nanargmin(row)), int(np.nanargmin(guess))
            lines.append(
                f"  dropout {1 - rate:.2f}: least loss {row[at]:.3f} at round {at + 1}, fitted {guess[said]:.3f} "
                f"at round {said + 1}"
            )
        return "\n".join(lines)


def slopes(constants: Mapping[str, float], rounds: FloatArray, keep: FloatArray) -> FloatArray:
    """Return the derivatives of F by the logarithms of the constants, in their order (``CONSTANTS``).

    Parameters
    ----------
    constants, rounds, keep
        As for :func:`predicted_loss`; rounds > 0 and keep rates, both of shape [N].

    Returns
    -------
    array
        In nats. Shape [N, 8].
    """
    c = constants
    with np.errstate(over="ignore", invalid="ignore"):
        # z = (a R s^q)^alpha; its share z / (1 + z) is finite where z is not
        log_z = c["order"] * (np.log(c["pace"] * rounds) + c["exponent"] * np.log(keep))
        left = 1.0 / (1.0 + np.exp(log_z))
    fall = -c["drop"] * left * (1.0 - left)
    lost = c["protection"] * (1.0 - keep**2)
    over = c["overfit"] * rounds ** c["growth"] / np.sqrt(1.0 + lost)
    return np.stack(
        [
            np.full(len(rounds), c["floor"]),
            c["drop"] * left,
            fall * c["order"],
            fall * c["order"] * c["exponent"] * np.log(keep),
            fall * log_z,
            over,
            over * c["growth"] * np.log(rounds),
            -0.5 * over * lost / (1.0 + lost),
        ],
        axis=1,
    )


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))


def past(curves: LearningCurves) -> BoolArray:
    """Where a curve has overfitted to more than 1.3 of its least loss, and is beyond what any plan would choose.

    Parameters
    ----------
    curves
        Of pilot runs.

    Returns
    -------
    array
        Shape [P, R].
    """
    out = np.zeros(curves.loss.shape, dtype=bool)
    for row, mark in zip(curves.loss, out, strict=True):
        best = int(np.nanargmin(row))
        over = np.flatnonzero(row[best:] > _PAST * row[best])
        if over.size:
            mark[best + over[0] :] = True
    return out


def fit_learning(curves: LearningCurves, *, starts: int = 24) -> LearningFit:
    """Fit the eight constants by robust least squares in the logarithm of the loss, from many starts.

    Beyond ten per cent an error counts by its size, so that a spike does not bend the rest. Where a curve has
    overfitted to more than 1.3 of its least loss no plan goes, and all that is asked of F is to say so: it need
    not be right, only not below that. Before training the loss is that of knowing the classes' frequencies,
    F(0, s) = L + D: one more point per rate. The starts are a fixed quasi-random set, so the fit is the same every
    time. It is a local method: the best of the starts is reported with its error, not a proof of a least one. The
    bounds of the constants (all positive) make
    learning fall and overfitting grow in rounds and keep rate whatever the data say.

    Parameters
    ----------
    curves
        Mean losses over keep rates and rounds.
    starts
        Number of starts; a fit takes about two seconds at 24.

    Returns
    -------
    LearningFit
        The constants and the misfit.
    """
    from scipy.optimize import least_squares
    from scipy.stats import qmc

    names = list(CONSTANTS)
    known = np.isfinite(curves.loss)
    least = max(float(curves.loss[known].min()), 1e-6)
    over = past(curves)
    edge = np.where(over, _PAST * np.nanmin(curves.loss, axis=1, keepdims=True), curves.loss)
    target, over = np.log(np.maximum(edge[known], 1e-3 * least)), over[known]
    rows, columns = np.nonzero(known)
    rate, count = curves.keep[rows], curves.rounds[columns]
    anchored = curves.blind_loss > 0.0
    weight = math.sqrt(len(curves.keep))
    low, high = np.log(np.array(list(CONSTANTS.values())).T)

    def constants(x: FloatArray) -> dict[str, float]:
        return dict(zip(names, np.exp(x).tolist(), strict=True))

    def residual(x: FloatArray) -> FloatArray:
        c = constants(x)
        error = np.log(predicted_loss(c, count, rate)) - target
        error = np.where(over, np.minimum(error, 0.0), error)
        if anchored:
            error = np.append(error, weight * math.log((c["floor"] + c["drop"]) / curves.blind_loss))
        return error

    def jacobian(x: FloatArray) -> FloatArray:
        c = constants(x)
        value = predicted_loss(c, count, rate)
        counts = ~over | (np.log(value) < target)
        rows = slopes(c, count, rate) / value[:, None] * counts[:, None]
        if anchored:
            start = np.zeros(len(names))
            start[:2] = weight * np.array([c["floor"], c["drop"]]) / (c["floor"] + c["drop"])
            rows = np.vstack([rows, start])
        return rows

    # where the starts lie, constant by constant
    first = max(float(np.nanmax(curves.loss[:, 0])) - least, 0.1 * least)
    span = float(curves.loss.shape[1])
    near = np.log(
        [
            [0.5 * least, least],
            [0.5 * first, 3.0 * first],
            [0.5 / span, 3.0],
            [0.3, 3.0],
            [0.7, 4.0],
            [1e-4, 0.3],
            [0.5, 2.5],
            [0.1, 50.0],
        ]
    ).T
    best: Any = None
    for unit in qmc.Halton(len(names), scramble=False).random(starts + 1)[1:]:
        start = np.clip(near[0] + unit * (near[1] - near[0]), low + 1e-6, high - 1e-6)
        found = least_squares(
            residual,
            start,
            jacobian,
            (low, high),
            x_scale="jac",
            loss="soft_l1",
            f_scale=_SPIKE,
            ftol=1e-6,
            max_nfev=200,
        )
        if best is None or found.cost < best.cost:
            best = found
    return LearningFit(MappingProxyType(constants(best.x)), curves)
