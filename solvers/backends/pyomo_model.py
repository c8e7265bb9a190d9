r"""The problem as a readable Pyomo model, in two forms.

``log`` (:mod:`edgealloc.solvers.backends.logform`; FDMA without discrete choices) is convex where the problem is
log-convex, so that a local optimum is the optimum. ``direct`` is the textbook: keep rates, bandwidths, powers,
frequencies, upload times and binaries, for every access scheme and variant, in units that keep numbers near 1.
Readers may start there; solvers should not: products of variables hide the convexity, and global solvers do not
close five devices of it in a minute.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import RefusedError, needs
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count, subcarrier_hz
from edgealloc.solvers.backends.logform import LogForm, allocation_of, mean_exponential
from edgealloc.units import LN2, FloatArray

__all__ = ["Form", "allocation_of_model", "to_pyomo"]

Form = Literal["log", "direct"]

# Units of the direct form: what one unit of a variable is in SI.
MBIT, GCYCLE, GHZ, KHZ = 1e6, 1e9, 1e9, 1e3


def to_pyomo(problem: Problem, form: Form | None = None) -> Any:
    """The problem as a ``pyomo.environ.ConcreteModel``, for constraints of your own and any Pyomo solver.

    Parameters
    ----------
    problem
        The problem; its underfitting term must be ``inverse-keep`` or ``perturbation``.
    form
        ``log`` or ``direct`` (see the module); by default ``log`` where it exists.

    Returns
    -------
    pyomo.environ.ConcreteModel
        Variables over the set K of the device names: ``x``, ``tau``, ``eps``, ``phi``, ``beta``, ``v``
        (dimensionless), or ``keep``, ``freq`` in GHz, ``upload_s`` in s, ``bandwidth`` in kHz, ``power`` in W, and
        binaries. :func:`allocation_of_model` reads them back.

    Raises
    ------
    MissingPackageError
        Without pyomo.
    RefusedError
        For another underfitting term; for ``log`` where the problem has no such form.
    """
    needs("pyomo", "pyomo", "a back end of pyomo")
    if problem.underfit.name not in ("inverse-keep", "perturbation"):
        raise RefusedError(f"Pyomo models take inverse-keep and perturbation, not {problem.underfit.name!r}")
    problem = problem.tightened
    if problem.constraints:
        raise RefusedError(f"add {'; '.join(map(str, problem.constraints))} to the model as a Pyomo constraint")
    flat = problem.instance.access == "fdma" and not problem.structure.discrete
    if (form or ("log" if flat else "direct")) == "direct":
        return _direct(problem)
    if not flat:
        raise RefusedError("the log form takes FDMA without discrete choices; use form='direct'")
    return _log(problem)


def allocation_of_model(problem: Problem, model: Any) -> Allocation:
    """The allocation that the variables of either form hold.

    Parameters
    ----------
    problem, model
        The problem and its model; variables without a value count as 0.

    Returns
    -------
    Allocation
        In SI units, as the solver left it: budgets may be broken.
    """
    from pyomo.environ import value

    inst, names = problem.instance, problem.instance.device_names

    def row(var: Any) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([float(value(var[name], exception=False) or 0.0) for name in names])

    if model.component("beta") is not None:
        return allocation_of(problem, *(row(getattr(model, v)) for v in ("x", "tau", "eps", "phi", "beta")))
    on = row(model.selected) > 0.5
    option = np.full(inst.num_devices, -1, dtype=np.intp)
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            option[i] = int(np.argmax([value(model.pick[names[i], o]) for o in range(len(menu))]))
    plain: dict[str, Any] = {
        "keep": row(model.keep),
        "freq_hz": GHZ * row(model.freq),
        "selected": on,
        "option": option,
    }
    if inst.access == "ofdma":
        carriers = range(inst.num_subcarriers or 0)
        own = np.array([[value(model.own[name, m]) for m in carriers] for name in names])
        power = np.array([[value(model.power[name, m]) for m in carriers] for name in names])
        owner = np.where(own.max(axis=0) > 0.5, own.argmax(axis=0), -1)
        power_m = power[np.maximum(owner, 0), np.arange(len(owner))]
        return Allocation(**plain, owner=owner, power_w=np.where(owner >= 0, np.maximum(power_m, 0.0), 0.0))
    if inst.access == "rb":
        band = np.rint(row(model.blocks)) * (inst.block_hz or 0.0)
    else:
        band = KHZ * row(model.bandwidth)
    return Allocation(**plain, bandwidth_hz=np.where(on, band, 0.0), power_w=np.where(on, row(model.power), 0.0))


def _log(problem: Problem) -> Any:
    """The form of :mod:`edgealloc.solvers.backends.logform`: dimensionless logarithms of what a device does.

    Variables ``x``, ``tau``, ``eps``, ``phi``, ``beta`` and ``v`` over the devices, and ``kept``, the sum of w
    s^2. Rows latency, energy, power, rate, upload and spectrum are posynomials or convex as they stand.
    """
    import pyomo.environ as pyo

    form, inst = LogForm.of(problem), problem.instance
    at = {name: i for i, name in enumerate(inst.device_names)}
    nodes, logs = mean_exponential()
    m = pyo.ConcreteModel(name=f"{inst.name} (log)")
    m.K = pyo.Set(initialize=list(at), doc="devices")

    def variable(doc: str, start: float, low: FloatArray, high: FloatArray) -> Any:
        def bounds(_m: Any, k: str) -> tuple[float, float]:
            return float(low[at[k]]), float(high[at[k]])

        def initial(m: Any, k: str) -> float:
            least, most = bounds(m, k)
            return min(max(start, least), most)

        return pyo.Var(m.K, bounds=bounds, initialize=initial, doc=doc)

    zero = np.zeros(len(at))
    m.x = variable("log of the keep rate s", math.log(0.3), form.x_min, form.x_max)
    m.tau = variable("log of upload time over deadline", math.log(0.4), zero - 30.0, zero)
    m.eps = variable(
        "log of upload energy over energy budget (less its static part)", math.log(0.4), zero - 30.0, zero
    )
    m.phi = variable("log of frequency over its maximum", math.log(0.6), form.phi_min, zero)
    m.beta = variable("log of bandwidth over the whole", -math.log(len(at)) - 0.1, zero - 30.0, zero)
    m.v = variable("spectral efficiency ln(1 + SNR)", 2.0, zero + 1e-5, zero + 40.0)
    m.kept = pyo.Var(bounds=(0, 1), initialize=0.2, doc="sum of w s^2")

    def latency(m: Any, k: str) -> Any:
        i = at[k]
        compute = form.compute_fixed[i] * pyo.exp(-m.phi[k]) + form.compute_lora[i] * pyo.exp(m.x[k] - m.phi[k])
        return form.download_fixed[i] + form.download_lora[i] * pyo.exp(m.x[k]) + compute + pyo.exp(m.tau[k]) <= 1

    def energy(m: Any, k: str) -> Any:
        compute = form.energy_fixed[at[k]] * pyo.exp(2 * m.phi[k])
        return compute + form.energy_lora[at[k]] * pyo.exp(2 * m.phi[k] + m.x[k]) + pyo.exp(m.eps[k]) <= 1

    def payload(m: Any, k: str) -> Any:
        return pyo.log(form.head[at[k]] + pyo.exp(m.x[k])) if form.head[at[k]] > 0 else m.x[k]

    def rate(m: Any, k: str) -> Any:
        return payload(m, k) + form.nats[at[k]] - m.tau[k] - m.beta[k] <= pyo.log(m.v[k])

    def upload(m: Any, k: str) -> Any:
        shift = payload(m, k) + float(form.nats[at[k]] - form.snr[at[k]]) - m.eps[k]
        return sum(pyo.exp(float(u) * m.v[k] + shift + float(w)) for u, w in zip(nodes, logs, strict=True)) <= 1

    m.latency = pyo.Constraint(m.K, rule=latency, doc="download, computing and upload within the deadline")
    m.energy = pyo.Constraint(m.K, rule=energy, doc="computing and upload within the energy budget")
    m.power = pyo.Constraint(
        m.K, rule=lambda m, k: m.eps[k] - m.tau[k] + float(form.power[at[k]]) <= 0, doc="transmit power"
    )
    m.rate = pyo.Constraint(m.K, rule=rate, doc="bits over time and band give the efficiency v")
    m.upload = pyo.Constraint(m.K, rule=upload, doc="energy that Shannon's rate asks for at efficiency v")
    m.spectrum = pyo.Constraint(expr=sum(pyo.exp(m.beta[k]) for k in m.K) <= 1)
    if inst.common_keep:
        first = next(iter(at))
        m.common = pyo.Constraint(
            m.K, rule=lambda m, k: m.x[k] == m.x[first] if k != first else pyo.Constraint.Skip
        )
    if problem.underfit.name == "inverse-keep":
        loss = sum(float(form.underfit[i]) * (pyo.exp(-m.x[k]) - 1) for k, i in at.items())
    else:
        loss = sum(float(form.underfit[i]) * (1 - pyo.exp(2 * m.x[k])) for k, i in at.items())
    square = {k: pyo.exp(2 * m.x[k]) for k in at}
    _close(m, problem, loss, square, {k: float(w) for k, w in zip(at, inst.weights, strict=True)})
    return m


def _close(m: Any, problem: Problem, loss: Any, square: dict[str, Any], weight: dict[str, float]) -> None:
    """Add the stability term and the objective. ``square``: s^2 of each device."""
    import pyomo.environ as pyo

    term = problem.stability

    def gap(kept: Any, scale: float) -> Any:
        y = term.curvature + 2 * term.sparsity * (1 - kept)
        return pyo.sqrt(float(term.base * scale) + float(term.spread * scale) / y)

    scales = np.broadcast_to(term.scale, (len(weight),))
    m.sparsity = pyo.Constraint(expr=sum(weight[k] * square[k] for k in weight) <= m.kept)
    if problem.pooled:
        stability = gap(m.kept, float(term.scale))
    else:
        stability = sum(weight[k] * gap(square[k], float(s)) for k, s in zip(weight, scales, strict=True))
    m.bound = pyo.Objective(expr=loss + stability, sense=pyo.minimize, doc="the generalisation bound G")


def _direct(problem: Problem) -> Any:
    """The textbook: ``keep``, ``freq`` in GHz, ``upload_s`` in s, ``selected``, menu rows and levels as binaries.

    Rows: latency in s, energy in J, payload in Mbit; :func:`_uplink` brings spectrum, power and rate. Products of
    variables stand as they are, so that the model reads like docs/model.md.
    """
    import pyomo.environ as pyo

    inst, names = problem.instance, problem.instance.device_names
    at = {name: i for i, name in enumerate(names)}
    deadline = inst.latency_s
    m = pyo.ConcreteModel(name=f"{inst.name} (direct)")
    m.K = pyo.Set(initialize=list(names), doc="devices")

    def per_device(low: Any, high: Any, start: Any, doc: str) -> Any:
        low, high, start = (np.broadcast_to(a, (len(names),)) for a in (low, high, start))
        return pyo.Var(
            m.K,
            bounds=lambda _m, k: (float(low[at[k]]), float(high[at[k]])),
            initialize=lambda _m, k: float(np.clip(start[at[k]], low[at[k]], high[at[k]])),
            doc=doc,
        )

    m.keep = per_device(inst.keep_min, inst.keep_max, 0.3, "keep rate")
    m.freq = per_device(inst.freq_min_hz / GHZ, inst.freq_max_hz / GHZ, inst.freq_max_hz / GHZ, "frequency, GHz")
    m.upload_s = per_device(0.0, deadline, 0.3 * deadline, "upload time, s")
    m.selected = pyo.Var(m.K, domain=pyo.Binary, initialize=1)
    m.kept = pyo.Var(bounds=(0, 1), initialize=0.2, doc="sum of w s^2")
    if inst.exclusion_penalty is None:
        m.selected.fix(1)
    menus = inst.adapter_options or (None,) * len(names)
    rows = [(k, o) for k, menu in zip(names, menus, strict=True) if menu for o in range(len(menu))]
    m.pick = pyo.Var(rows, domain=pyo.Binary, doc="menu row taken")
    levels = inst.keep_levels or (None,) * len(names)
    steps = [
        (k, j) for k, level in zip(names, levels, strict=True) if level is not None for j in range(len(level))
    ]
    m.step = pyo.Var(steps, domain=pyo.Binary, doc="keep level taken")
    m.choices = pyo.ConstraintList(doc="one menu row, one level each; one rate for all where it is common")
    for k, menu, level in zip(names, menus, levels, strict=True):
        if menu:
            m.choices.add(sum(m.pick[k, o] for o in range(len(menu))) == 1)
        if level is not None:
            m.choices.add(sum(m.step[k, j] for j in range(len(level))) == 1)
            m.choices.add(m.keep[k] == sum(float(s) * m.step[k, j] for j, s in enumerate(level)))
    if inst.common_keep:
        m.common = pyo.Var(bounds=(0, 1), initialize=0.3)
        for k in names:
            m.choices.add(m.keep[k] - m.common <= 1 - m.selected[k])
            m.choices.add(m.common - m.keep[k] <= 1 - m.selected[k])

    def chosen(k: str, plain: float, attribute: str) -> Any:
        menu = menus[at[k]]
        if not menu:
            return plain
        return sum(float(getattr(row, attribute)) * m.pick[k, o] for o, row in enumerate(menu))

    def bits(k: str) -> Any:
        """Upload in Mbit; nothing for a device left out."""
        lora = chosen(k, float(inst.payload_lora_bits[at[k]]), "payload_lora_bits")
        return m.selected[k] * (float(inst.payload_fixed_bits[at[k]]) + lora * m.keep[k]) / MBIT

    def work(k: str) -> Any:
        """Cycles in Gcycle; none for a device left out."""
        lora = chosen(k, float(inst.cycles_lora[at[k]]), "cycles_lora")
        fixed = float(inst.cycles_fixed[at[k]]) + chosen(k, 0.0, "cycles_fixed")
        return m.selected[k] * (fixed + lora * m.keep[k]) / GCYCLE

    _uplink(m, problem)

    def latency(m: Any, k: str) -> Any:
        rate = float(inst.downlink_bps[at[k]])
        beside = m.selected[k] * chosen(k, 0.0, "download_bits")
        download = (bits(k) * MBIT + beside) / rate if np.isfinite(rate) else 0.0
        return download + work(k) / m.freq[k] + m.upload_s[k] <= deadline

    def energy(m: Any, k: str) -> Any:
        i = at[k]
        heat = float(inst.capacitance[i]) * GHZ**2 * GCYCLE
        static = float(inst.energy_static_j[i]) * m.selected[k]
        return heat * m.freq[k] ** 2 * work(k) + m.total_power[k] * m.upload_s[k] + static <= float(
            inst.energy_j[i]
        )

    m.latency = pyo.Constraint(m.K, rule=latency, doc="download, computing and upload, s")
    m.energy = pyo.Constraint(m.K, rule=energy, doc="computing, upload and static energy, J")
    m.rate = pyo.Constraint(m.K, rule=lambda m, k: bits(k) <= m.upload_s[k] * m.rate_mbps[k], doc="Mbit")
    weight = {k: float(w) for k, w in zip(names, inst.weights, strict=True)}
    loss = 0.0
    for k in names:
        s = m.keep[k]
        under = 1 / s - 1 if problem.underfit.name == "inverse-keep" else 1 - s**2
        factor = chosen(k, 1.0, "underfit_factor")
        penalty = (inst.exclusion_penalty or 0.0) * (1 - m.selected[k])
        loss += inst.bound.underfit_weight * weight[k] * (m.selected[k] * factor * under + penalty)
    _close(m, problem, loss, {k: m.selected[k] * m.keep[k] ** 2 for k in names}, weight)
    return m


def _uplink(m: Any, problem: Problem) -> None:
    """Shares of the spectrum, powers in W, and the rate in Mbit/s of every device."""
    import pyomo.environ as pyo

    inst, names = problem.instance, problem.instance.device_names
    at, noise = {name: i for i, name in enumerate(names)}, inst.noise_psd_w_per_hz
    limit = {k: float(inst.power_max_w[at[k]]) for k in names}
    if inst.access == "ofdma":
        m.M = pyo.RangeSet(0, (inst.num_subcarriers or 1) - 1, doc="sub-carriers")
        width = subcarrier_hz(inst)
        m.own = pyo.Var(m.K, m.M, domain=pyo.Binary, doc="who owns a sub-carrier")
        m.power = pyo.Var(
            m.K, m.M, bounds=lambda _m, k, _c: (0, limit[k]), initialize=1e-3, doc="W on a sub-carrier"
        )
        m.owned = pyo.Constraint(m.K, m.M, rule=lambda m, k, c: m.power[k, c] <= limit[k] * m.own[k, c])
        m.spectrum = pyo.Constraint(m.M, rule=lambda m, c: sum(m.own[k, c] for k in names) <= 1)
        m.total_power = pyo.Expression(m.K, rule=lambda m, k: sum(m.power[k, c] for c in m.M))
        m.transmit = pyo.Constraint(m.K, rule=lambda m, k: m.total_power[k] <= limit[k])

        def shannon(m: Any, k: str) -> Any:
            snr = inst.gain[at[k]] / (noise * width)
            return sum(pyo.log(1 + float(snr[c]) * m.power[k, c]) for c in m.M) * (width / LN2 / MBIT)

        m.rate_mbps = pyo.Expression(m.K, rule=shannon)
        return
    m.power = pyo.Var(m.K, bounds=lambda _m, k: (0, limit[k]), initialize=lambda _m, k: 0.5 * limit[k], doc="W")
    m.total_power = pyo.Expression(m.K, rule=lambda m, k: m.power[k])
    least = 1e-6 * inst.bandwidth_hz / KHZ  # the rate has no value at bandwidth 0
    band = (least, inst.bandwidth_hz / KHZ)
    m.bandwidth = pyo.Var(m.K, bounds=band, initialize=0.9 * band[1] / len(names), doc="kHz")
    if inst.access == "rb":
        most = block_count(inst.bandwidth_hz, inst.block_hz or 1.0)
        m.blocks = pyo.Var(m.K, domain=pyo.NonNegativeIntegers, bounds=(0, most), doc="resource blocks")
        m.whole = pyo.Constraint(
            m.K, rule=lambda m, k: m.bandwidth[k] <= (inst.block_hz or 0.0) / KHZ * m.blocks[k] + least
        )
        m.spectrum = pyo.Constraint(expr=sum(m.blocks[k] for k in names) <= most)
    else:
        m.spectrum = pyo.Constraint(expr=sum(m.bandwidth[k] for k in names) <= band[1])

    def rate(m: Any, k: str) -> Any:
        snr_khz = float(inst.gain[at[k]]) / noise / KHZ
        return m.bandwidth[k] * pyo.log(1 + snr_khz * m.power[k] / m.bandwidth[k]) * (KHZ / LN2 / MBIT)

    m.rate_mbps = pyo.Expression(m.K, rule=rate)
