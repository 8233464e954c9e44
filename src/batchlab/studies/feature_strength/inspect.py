"""What nets that train together are like at a moment: loss, sharpness, and kernel alignment.

All in float64, on fixed inputs, of every run at once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.measure._lanczos import lanczos
from batchlab.studies.feature_strength.nets import (
    Layer,
    Net,
    Setting,
    forward,
    losses_and_slopes,
)


def wide(net: Net) -> Net:
    """A copy in float64."""
    return tuple(Layer(*(part.detach().double() for part in layer)) for layer in net)


class Inspector:
    """Fixed inputs, and what is subtracted of f on them.

    Args:
        setting: What the runs share.
        begin: Their start, R = 1.
        examples: Inputs and labels. Shapes ``[B, D]`` and ``[B, 1]``.
    """

    def __init__(
        self, setting: Setting, begin: Net, examples: tuple[Float[Tensor, "B D"], Tensor]
    ) -> None:
        self.setting = setting
        self.x, self.y = (part.double() for part in examples)
        zero = forward(wide(begin), self.x, setting)[-1]
        self.zero = zero if setting.centred else torch.zeros_like(zero)

    def outputs(self, net: Net, gammas: Float[Tensor, " R"]) -> Float[Tensor, "R B 1"]:
        """F."""
        seen = forward(wide(net), self.x, self.setting)
        return (seen[-1] - self.zero) / gammas.double()[:, None, None]

    def hidden(self, net: Net) -> Float[Tensor, "R B N"]:
        """Activations of the last hidden layer."""
        return forward(wide(net), self.x, self.setting)[-2]

    def losses(self, net: Net, gammas: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """Mean losses."""
        return losses_and_slopes(self.outputs(net, gammas), self.y, self.setting.loss)[0]

    def alignment(self, net: Net) -> Float[Tensor, " R"]:
        """yᵀKy/(‖K‖_F |y|²), K the neural tangent kernel: how much of it points at the labels."""
        kernel = tangent_kernel(wide(net), self.x, self.setting)
        y = self.y[:, 0]
        along = torch.einsum("rij,i,j->r", kernel, y, y)
        return along / (kernel.square().sum((1, 2)).sqrt() * y.square().sum())

    def sharpness(self, net: Net, gammas: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """N · largest eigenvalue of the Hessian: stable while it is below 2/η.

        Its unit is that of 1/η, since SGD's rate is Nη.
        """
        products = _Products(self, wide(net), gammas.double())
        found = lanczos(products, tolerance=0.01)
        scale = float(self.setting.width) ** self.setting.rate
        return scale * torch.tensor([float(one.values[0]) for one in found])

    def signal_to_noise(self, net: Net, gammas: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
        """|G|²/tr Σ, per example: one over the noise scale.

        Unbiased, |G|² may come out below 0 where it is not resolved, so the noise scale itself,
        over a number around 0, has no mean; tr Σ is never below 0.

        With g_i = ℓ'_i ∂F_i, g_i·g_j = ℓ'_iℓ'_j K_ij/γ². Without bias, Σ from pairs i = j and |G|²
        from pairs i ≠ j.
        """
        _, slopes = losses_and_slopes(self.outputs(net, gammas), self.y, self.setting.loss)
        pull = slopes[..., 0] * len(self.x)
        kernel = tangent_kernel(wide(net), self.x, self.setting)
        products = kernel * pull[:, :, None] * pull[:, None, :]
        n = len(self.x)
        own = products.diagonal(dim1=1, dim2=2).mean(1)
        signal = (products.sum((1, 2)) - n * own) / (n * (n - 1))
        return signal / (own - signal)

    def seen(self, net: Net, gammas: Float[Tensor, " R"]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, sharpness and alignment."""
        return self.losses(net, gammas), self.sharpness(net, gammas), self.alignment(net)


def tangent_kernel(net: Net, x: Float[Tensor, "B D"], setting: Setting) -> Float[Tensor, "R B B"]:
    """K_ij = Σ over parameters ∂f(x_i) ∂f(x_j), layer by layer.

    The gradient of a layer is the product of what comes in and what f does with what goes out.
    """
    seen = forward(net, x, setting)
    out = torch.ones_like(seen[-1])
    kernel = torch.zeros(())
    for i in range(setting.depth - 1, -1, -1):
        h, scale = seen[i], setting.scales[i]
        kernel = kernel + scale**2 * (h @ h.mT + 1) * (out @ out.mT)
        out = scale * (out @ net[i].weight.mT) * (h > 0)
    return kernel


class _Products:
    """Hessian-vector products of every run, by one retained graph."""

    def __init__(self, owner: Inspector, net: Net, gammas: Tensor) -> None:
        self.owner, self.net, self.gammas = owner, net, gammas
        self.like = torch.cat([part.flatten(1) for layer in net for part in layer], 1)
        flat = self.like.detach().requires_grad_()
        seen = forward(_shaped(flat, net), owner.x, owner.setting)
        output = (seen[-1] - owner.zero) / gammas[:, None, None]
        losses = losses_and_slopes(output, owner.y, owner.setting.loss)[0]
        self.flat = flat
        (self.slopes,) = torch.autograd.grad(losses.sum(), flat, create_graph=True)

    def __call__(self, vectors: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        (found,) = torch.autograd.grad(self.slopes, self.flat, vectors, retain_graph=True)
        return found

    def only(self, rows: list[int]) -> _Products:
        """Some of the runs."""
        some = torch.tensor(rows)
        net = tuple(Layer(*(part[some] for part in layer)) for layer in self.net)
        return _Products(self.owner, net, self.gammas[some])


def _shaped(flat: Float[Tensor, "R P"], like: Net) -> Net:
    """Vectors as layers."""
    sizes = [part[0].numel() for layer in like for part in layer]
    parts = iter(flat.split(sizes, 1))
    return tuple(Layer(*(next(parts).view(part.shape) for part in layer)) for layer in like)
