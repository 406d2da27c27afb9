from dataclasses import replace

import pytest
import torch

from guard.core.errors import ManifestRejected
from guard.graphs.denoiser import Denoiser
from guard.graphs.model import SamplerConfig
from guard.graphs.sampler import Sampler


def denoiser() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser(latent=4, context=6, width=8, depth=1)


def test_noise_depends_on_seed_and_number_alone() -> None:
    sampler = Sampler(SamplerConfig(steps=5), 20)

    one = sampler.noise([(7, 0), (7, 1), (8, 0)], 4)
    other = sampler.noise([(8, 0), (7, 0)], 4)

    assert one.shape == (3, 6, 4)
    assert torch.equal(one[0], other[1])
    assert torch.equal(one[2], other[0])
    assert not torch.equal(one[0], one[1])
    many = sampler.noise([(0, number) for number in range(400)], 4)
    assert abs(float(many.mean())) < 0.05
    assert abs(float(many.std()) - 1) < 0.05


def test_a_full_schedule_ends_near_noise_and_starts_near_the_clean_latents() -> None:
    sampler = Sampler(SamplerConfig(), 100)

    assert sampler.kept[0] > 0.99
    assert sampler.kept[-1] < 0.01
    assert sampler.times()[0] == 99
    assert sampler.times()[-1] == 0
    assert len(sampler.times()) == 25
    clean, noise = torch.ones(1, 4), torch.zeros(1, 4)
    assert torch.allclose(sampler.noisy(clean, torch.tensor([0]), noise), clean, atol=0.01)


def test_a_prompt_weighs_as_much_as_the_guidance_says() -> None:
    network = denoiser()
    noisy, context = torch.randn(3, 4), torch.randn(3, 6)

    def predicted(guidance: float) -> torch.Tensor:
        sampler = Sampler(SamplerConfig(guidance=guidance), 100)
        return sampler.predict(network, noisy, 50, sampler.entered(network, context))

    mixed = 0.8 * predicted(1.0) + 0.2 * predicted(0.0)
    assert torch.allclose(predicted(0.8), mixed, atol=1e-6)
    assert not torch.allclose(predicted(1.0), predicted(0.0))


def test_samples_are_differentiable_in_the_context_and_standardisation_is_undone() -> None:
    network, sampler = denoiser(), Sampler(SamplerConfig(steps=3), 10)
    context = torch.randn(2, 6, requires_grad=True)
    noise = sampler.noise([(0, 0), (0, 1)], 4)
    first = sampler.sample(network, context, noise)
    first.sum().backward()
    network.shift += 5.0

    assert context.grad is not None
    assert float(context.grad.abs().sum()) > 0
    assert torch.allclose(sampler.sample(network, context, noise), first + 5, atol=1e-5)
    assert torch.allclose(network.raw(network.standardised(noise[:, 0])), noise[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"steps": 0}, 100),
        ({"steps": 101}, 100),
        ({}, 1001),
        ({"eta": 1.5}, 100),
        ({"eta": float("nan")}, 100),
        ({"guidance": -1.0}, 100),
        ({"schedule": "cosine"}, 100),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], count: int) -> None:
    with pytest.raises(ManifestRejected) as caught:
        Sampler(replace(SamplerConfig(), **change), count)  # type: ignore[arg-type]

    assert caught.value.code == "manifest_bad_sampler"


def test_several_contexts_at_once_give_what_each_gives_alone() -> None:
    network = denoiser()
    noisy, step = torch.randn(3, 4), torch.full((1,), 0.5)
    first, other = torch.randn(3, 6), torch.randn(1, 6)

    both = network.given(noisy, step, network.entered(first), network.entered(other))

    assert torch.allclose(both[:3], network(noisy, step, first), atol=1e-6)
    assert torch.allclose(both[3:], network(noisy, step, other.expand(3, -1)), atol=1e-6)
    many = network(noisy, step.expand(3), first)  # a time for each row, as in training
    assert torch.allclose(many, both[:3], atol=1e-6)
