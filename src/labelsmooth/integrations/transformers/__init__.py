r"""Label smoothing for the models of Transformers, in its Trainer and in other training loops.

.. math::
    \mathcal{L} = \frac{1}{N} \sum_i H(p_i, q_\theta) + \frac{c}{M} \sum_m A_m

N and M are the numbers of labels and micro-batches of a step over all processes, and c A is the router loss
of a mixture of experts.
"""

try:
    import transformers as _transformers
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"labelsmooth.integrations.transformers needs {_error.name}: pip install 'labelsmooth[transformers]'",
        name=_error.name,
    ) from _error

from labelsmooth.integrations.transformers._callback import SmoothingCallback as SmoothingCallback
from labelsmooth.integrations.transformers._forward import smooth as smooth
from labelsmooth.integrations.transformers._loss import SmoothedLoss as SmoothedLoss

del _transformers
__all__ = ["SmoothedLoss", "SmoothingCallback", "smooth"]
