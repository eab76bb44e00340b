"""Linear maps by the faster of torch's two libraries."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch, "mkldnn_convolution")
    and "AVX512" in torch.backends.cpu.get_cpu_capability()
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` by the faster of torch's two libraries: [..., D], [D', D] and [D'] to [..., D'].

    torch multiplies float32 matrices by MKL, which leaves half of an AMD processor's AVX-512 idle,
    and convolves by oneDNN, which does not. A linear map is a convolution of kernel 1, and with the
    channels last nothing has to be copied. (`F.conv2d` would take MKL, too, on one thread.)
    """
    fast = _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32
    fast = fast and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")
    if not fast or not x.numel() or not weight.numel():
        return F.linear(x, weight, bias)
    rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    kernel = weight[:, :, None, None]
    result = torch.mkldnn_convolution(rows, kernel, bias, [0, 0], [1, 1], [1, 1], 1)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D']."""
        return linear(x, self.weight, self.bias)
