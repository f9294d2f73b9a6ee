"""Layers in functions that JAX compiles, differentiates and maps."""

from .. import checks

try:
    import jax  # noqa: F401  (whether it is installed is the question)
except ImportError as error:
    raise checks.needs("fastrnn.jax", "jax", "jax") from error

from .apply import apply

__all__ = ["apply"]
