"""Types of tensors with their shapes, for annotations: jaxtyping's, or plain tensors without it.

Nothing looks at them when the library runs; tests have jaxtyping check them.
"""

try:
    from jaxtyping import Bool, Float, Int
except ImportError:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int

__all__ = ["Bool", "Float", "Int"]
