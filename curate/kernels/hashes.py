"""Mixing of 64-bit values, for hashes that are chained by the kernels themselves."""

from __future__ import annotations

import numpy as np

from curate.kernels.chars import inline_kernel

SPREAD = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S29, _S30, _S31, _S32 = (np.uint64(n) for n in (27, 29, 30, 31, 32))


@inline_kernel
def mix(h):
    """One to one, in one multiplication: for values that are hashed again."""
    h = (h ^ (h >> _S32)) * SPREAD
    return h ^ (h >> _S29)


@inline_kernel
def finish(h):
    """One to one, every bit of the result depends on all of the value: splitmix64's last step (Steele et al. 2014,
    doi:10.1145/2660193.2660195)."""
    h = (h ^ (h >> _S30)) * _M1
    h = (h ^ (h >> _S27)) * _M2
    return h ^ (h >> _S31)
