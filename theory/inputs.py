"""What the chapter asks of its arguments: a wrong one raises ValueError that names it, before anything is computed.

No lemma here: these checks are our conventions (`README.md`, "theory"). Next: bounds.py
"""
import numpy as np

ROUNDING = 1e-12  # relative; a lead of .9 - .8 counts as .1, and scores this close are tied


def number(name, value, low=-np.inf, high=np.inf, above=-np.inf):
    """Finite number or array, at least low, at most high, and larger than above -> float64, same shape."""
    try:
        value = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, not {value!r}") from None
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite")
    if (value < low).any() or (value > high).any() or (value <= above).any():
        limits = [f"at least {low:g}", f"above {above:g}", f"at most {high:g}"]
        asked = " and ".join(t for t, x in zip(limits, (low, above, high)) if np.isfinite(x))
        raise ValueError(f"{name} must be {asked}, not {value}")
    return value


def scalar(name, value, **limits):
    """As `number`, and a single one -> float."""
    value = number(name, value, **limits)
    if value.ndim:
        raise ValueError(f"{name} must be a single number, not an array of shape {value.shape}")
    return float(value)


def probability(name, value):
    """In [0, 1]; a sum of masses that is off by rounding alone is clipped. -> float64, same shape."""
    value = number(name, value)
    if (value < -1e-9).any() or (value > 1 + 1e-9).any():
        raise ValueError(f"{name} must be in [0, 1], not {value}")
    return np.clip(value, 0, 1)


def counts(name, value):
    """Whole numbers >= 1 -> float64, same shape (float: powers of counts overflow integers)."""
    value = number(name, value, low=1)
    if (value != np.floor(value)).any():
        raise ValueError(f"{name} must be whole, not {value}")
    return value


def count(name, value, low=1):
    """One whole number -> int."""
    value = scalar(name, value, low=low)
    if value != int(value):
        raise ValueError(f"{name} must be whole, not {value}")
    return int(value)


def vector(name, value, size=None, **limits):
    """-> (size,) float64."""
    value = number(name, value, **limits)
    if value.ndim != 1 or not value.size:
        raise ValueError(f"{name} must be a non-empty vector, not an array of shape {value.shape}")
    if size is not None and len(value) != size:
        raise ValueError(f"{name} must have {size} entries, not {len(value)}")
    return value


def weights(value, size=None, name="weights"):
    """-> (m,) float64, all above 0: theorem 1 scalarises with positive weights."""
    return vector(name, value, size, above=0)


def policy(value, size=None):
    """-> (K,) float64 that sums to exactly 1. Sums off by more than 1e-8 are refused."""
    value = vector("policy", value, size, low=0)
    if abs(value.sum() - 1) > 1e-8:
        raise ValueError(f"policy must sum to 1, not {value.sum():.10g}")
    return value / value.sum()


def rewards(value, actions=None, size=None):
    """-> (K, m) float64: one row of true rewards an action."""
    value = number("rewards", value)
    if value.ndim != 2 or not value.size:
        raise ValueError(f"rewards must have shape (actions, rewards), not {value.shape}")
    if actions is not None and len(value) != actions:
        raise ValueError(f"rewards must have {actions} rows, one an action, not {len(value)}")
    if size is not None and value.shape[1] != size:
        raise ValueError(f"rewards must have {size} columns, one a weight, not {value.shape[1]}")
    return value


def mask(name, value, size):
    """-> (size,) bool."""
    value = np.asarray(value)
    if value.shape != (size,) or value.dtype != bool:
        raise ValueError(f"{name} must be a bool vector of {size} entries, not {value.dtype} of shape {value.shape}")
    return value


def covariance(name, value, size):
    """-> (size, size) float64, symmetric, no negative eigenvalue (beyond rounding)."""
    value = number(name, value)
    if value.shape != (size, size):
        raise ValueError(f"{name} must have shape {(size, size)}, not {value.shape}")
    scale = max(np.abs(value).max(), np.finfo(float).tiny)
    if np.abs(value - value.T).max() > 1e-9 * scale:
        raise ValueError(f"{name} must be symmetric")
    if np.linalg.eigvalsh(value).min() < -1e-9 * scale:
        raise ValueError(f"{name} must not have a negative eigenvalue")
    return value


def noise_of_sum(w, c):
    """w'Cw, and 0 where it is 0 but for rounding. w: (m,), c: (m, m) -> float."""
    variance = w @ c @ w
    return float(variance) if variance > 1e-14 * (w @ np.abs(c) @ w) else 0.


def choice(name, value, options):
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, not {value!r}")
    return value


def shaped(values):
    """A result of shape () as a plain float."""
    return values if np.ndim(values) else float(values)
