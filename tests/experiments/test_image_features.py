"""Feature spaces: what they see, what they must not see, and the way back to an image."""

import numpy as np
import pytest

from nblib.core.errors import BadParameter, CorruptArtifact
from nblib.experiments.images import features
from nblib.models import FitSettings, vae
from nblib.simulate.units import natural_images


@pytest.fixture(scope="module")
def shown():
    return natural_images(24, np.random.default_rng(0)).astype(np.float32) / 255


def grating(wavelength, angle, phase=0.0):
    y, x = np.mgrid[:64, :80]
    turn = 2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle)) + phase
    return (0.5 + 0.4 * np.cos(turn)).astype(np.float32)


def test_pca_is_fitted_on_training_images_alone(shown):
    one, other = features.PCA(5), features.PCA(5)
    one.fit(shown[:20], None)
    other.fit(shown[:20], np.ones_like(shown[:2]))
    np.testing.assert_array_equal(one.encode(shown), other.encode(shown))
    np.testing.assert_allclose(one.axes @ one.axes.T, np.eye(5), atol=1e-9)


def test_pca_with_all_components_draws_its_training_images(shown):
    space = features.PCA(100)
    space.fit(shown[:20], None)
    assert space.encode(shown).shape == (24, 19)
    np.testing.assert_allclose(space.decode(space.encode(shown[:20])), shown[:20], atol=1e-5)


@pytest.mark.parametrize("wavelength", [6.0, 12.0, 24.0])
@pytest.mark.parametrize("orientation", range(4))
def test_a_gabor_answers_to_its_own_grating(wavelength, orientation):
    space = features.Gabor()
    picture = grating(wavelength, np.pi * orientation / 4)
    energy = space.encode(picture[None]).reshape(3, 4, 20).mean(axis=2)
    best = np.unravel_index(energy.argmax(), energy.shape)
    assert best == (space.wavelengths_px.index(wavelength), orientation)


def test_gabor_energy_does_not_depend_on_the_phase():
    space = features.Gabor()
    one, other = (space.encode(grating(12.0, 0.0, p)[None]) for p in (0.0, np.pi / 2))
    np.testing.assert_allclose(one.max(), other.max(), rtol=0.02)


def test_gabor_energy_knows_where_and_the_spectrum_does_not(shown):
    moved = np.roll(shown, (16, 32), axis=(1, 2))
    there, here = features.Gabor().encode(moved), features.Gabor().encode(shown)
    assert np.abs(there - here).max() > 0.1 * here.std()
    np.testing.assert_allclose(
        features.Spectrum().encode(moved), features.Spectrum().encode(shown), atol=1e-4
    )


def test_the_spectrum_tells_orientation():
    space = features.Spectrum()
    one, other = (space.encode(grating(10.0, a)[None])[0] for a in (0.0, np.pi / 2))
    assert np.abs(one - other).max() > 5


def test_given_latents_are_for_all_images_together(shown):
    space = features.Given(np.zeros((24, 3)))
    assert space.encode(shown).shape == (24, 3) and space.decode(np.zeros((2, 3))) is None
    with pytest.raises(BadParameter, match="all images"):
        space.encode(shown[:3])


# --- the autoencoder -----------------------------------------------------------------------------

FEW = FitSettings(max_epochs=3, batch_size=8, device="cpu", threads=1, progress=False)


def test_the_vae_learns_comes_back_and_is_the_same_again(shown, tmp_path):
    net, history = vae.fit_vae(shown[:16], shown[16:], n_latents=4, settings=FEW)
    again, _ = vae.fit_vae(shown[:16], shown[16:], n_latents=4, settings=FEW)
    z = vae.encode(net, shown)
    np.testing.assert_array_equal(z, vae.encode(again, shown))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert z.shape == (24, 4) and vae.decode(net, z).shape == shown.shape
    vae.save(net, tmp_path)
    np.testing.assert_array_equal(z, vae.encode(vae.load(tmp_path), shown))
    (tmp_path / vae.WEIGHTS).write_bytes(b"x")
    with pytest.raises(CorruptArtifact, match="not readable as safetensors"):
        vae.load(tmp_path)


def test_held_out_images_have_no_part_in_the_vae(shown):
    def weights(everything):
        space = features.Latents(3, FEW)
        space.fit(everything[:12], everything[12:16])
        return vae.encode(space.net, shown[:12])

    changed = shown.copy()
    changed[16:] = 1.0
    np.testing.assert_array_equal(weights(shown), weights(changed))


def test_the_loss_is_the_evidence_lower_bound():
    """Against the textbook formula, written out for one image."""
    import torch

    torch.manual_seed(0)
    net = vae.ConvVAE(3, beta=2.0, noise=0.5).eval()
    image = torch.rand(1, 64, 80)
    loss, _ = vae.elbo(net, image, torch.zeros(1))
    mean, log_var = net.encode(image)
    p, q = (
        torch.distributions.Normal(0.0, 1.0),
        torch.distributions.Normal(mean, (log_var / 2).exp()),
    )
    divergence = torch.distributions.kl_divergence(q, p).sum()
    pixel = torch.distributions.Normal(net.decode(mean), 0.5)
    constant = 64 * 80 * np.log(0.5 * np.sqrt(2 * np.pi))
    expected = -pixel.log_prob(image).sum() - constant + 2.0 * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_an_impossible_vae():
    with pytest.raises(BadParameter, match="multiples of 8"):
        vae.ConvVAE(3, height=65)
